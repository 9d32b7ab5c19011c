"""Every event and who reacts to it, on one screen.

A reaction gets the ids of events of its kinds and turns them into deliveries, set-based, in the
transaction that marks them as expanded.
"""

from pricebook.auth.events import ApiKeyCreated, ApiKeyRevoked
from pricebook.core.expansion import Subscriptions
from pricebook.items.events import ItemCreated, ItemDeleted, ItemPriceChanged, ItemUpdated
from pricebook.users.events import (
    EmailVerificationRequested,
    EmailVerified,
    PasswordResetRequested,
    UserCreated,
    UserDeleted,
    UserDisabled,
    UserPasswordChanged,
    UserUpdated,
)
from pricebook.webhooks.events import (
    WebhookCreated,
    WebhookDeleted,
    WebhookDeliveryDied,
    WebhookDisabled,
    WebhookSecretRotated,
    WebhookUpdated,
)

SUBSCRIPTIONS: Subscriptions = {
    ItemCreated: (),
    ItemUpdated: (),
    ItemPriceChanged: (),
    ItemDeleted: (),
    UserCreated: (),
    UserUpdated: (),
    UserDisabled: (),
    UserDeleted: (),
    UserPasswordChanged: (),
    PasswordResetRequested: (),
    EmailVerificationRequested: (),
    EmailVerified: (),
    ApiKeyCreated: (),
    ApiKeyRevoked: (),
    WebhookCreated: (),
    WebhookUpdated: (),
    WebhookSecretRotated: (),
    WebhookDisabled: (),
    WebhookDeliveryDied: (),
    WebhookDeleted: (),
}
