"""The one error that a user can mend."""


class ConfigError(ValueError):
    """What the user asked for cannot be done. The message names the field, the value found and what is allowed.

    Command lines print the message alone, without a traceback, and exit with code 2.
    """
