"""The worker role: claims due messages, makes callbacks, settles results."""
