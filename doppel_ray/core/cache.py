"""Where is kept what one process need not make again after another: compiled programs, decoded sounds."""
