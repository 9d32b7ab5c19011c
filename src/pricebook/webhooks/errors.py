"""What can be refused about webhooks."""

from pricebook.core.errors import Conflict, Invalid, NotFound


class WebhookNotFound(NotFound):
    """There is no such webhook."""


class WebhookDeliveryNotFound(NotFound):
    """The webhook has no such delivery."""


class TooManyWebhooks(Conflict):
    """There are as many webhooks as there may be; delete one first."""


class WebhookInactive(Conflict):
    """The webhook is paused or disabled; resume it first."""


class WebhookUrlRefused(Invalid):
    """This address is not public, and in no network that PRICEBOOK_WEBHOOKS__ALLOWED_NETWORKS opens."""  # noqa: E501 -- it is one sentence
