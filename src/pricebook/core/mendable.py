"""The error for what an operator can mend."""


class MendableError(Exception):
    """Pricebook cannot go on; the message says in a line what is wrong and what mends it."""
