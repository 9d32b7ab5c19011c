"""What can go wrong with reading the log."""

from pricebook.core.errors import Forbidden, Invalid


class EventTypeUnknown(Invalid):
    """There is no event of this type."""


class EventTypeHidden(Forbidden):
    """Your role does not allow reading events of this type."""


class PlaceMalformed(Invalid):
    """This is not the id of an event in this stream."""
