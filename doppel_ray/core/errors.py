"""The error that users can fix."""


class ConfigError(ValueError):
    """Bad input, refused before work starts. The message names the field, its value, what is allowed and a remedy.

    Command lines print the message without a traceback and exit with code 2.
    """
