"""Every event and who reacts to it, on one screen.

A reaction gets the ids of events of its kinds and turns them into deliveries, set-based, in the
transaction that marks them as expanded.
"""

from pricebook.auth.events import ApiKeyCreated, ApiKeyRevoked
from pricebook.core.expansion import Subscriptions
from pricebook.items.events import ItemCreated, ItemDeleted, ItemPriceChanged, ItemUpdated
from pricebook.jobs.events import JobFinished
from pricebook.notifications import reactions as notifications
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
from pricebook.webhooks import service as webhooks
from pricebook.webhooks.events import (
    WebhookCreated,
    WebhookDeleted,
    WebhookDeliveryDied,
    WebhookDisabled,
    WebhookSecretRotated,
    WebhookUpdated,
)

SUBSCRIPTIONS: Subscriptions = {
    ItemCreated: (webhooks.deliver,),
    ItemUpdated: (webhooks.deliver,),
    ItemPriceChanged: (webhooks.deliver, notifications.tell_watchers),
    ItemDeleted: (webhooks.deliver,),
    UserCreated: (webhooks.deliver, notifications.mail_verification),
    UserUpdated: (webhooks.deliver,),
    UserDisabled: (webhooks.deliver,),
    UserDeleted: (webhooks.deliver,),
    UserPasswordChanged: (webhooks.deliver, notifications.warn_of_credentials),
    PasswordResetRequested: (notifications.mail_password_reset,),
    EmailVerificationRequested: (notifications.mail_verification,),
    EmailVerified: (webhooks.deliver,),
    ApiKeyCreated: (webhooks.deliver, notifications.warn_of_credentials),
    ApiKeyRevoked: (webhooks.deliver,),
    WebhookCreated: (webhooks.deliver,),
    WebhookUpdated: (webhooks.deliver,),
    WebhookSecretRotated: (webhooks.deliver,),
    WebhookDisabled: (webhooks.deliver, notifications.tell_owner_of_webhook),
    WebhookDeliveryDied: (webhooks.deliver, notifications.tell_owner_of_webhook),
    WebhookDeleted: (webhooks.deliver,),
    JobFinished: (webhooks.deliver, notifications.tell_owner_of_job),
}
