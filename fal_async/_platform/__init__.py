"""The platform API: the account's requests, and the models with their prices and schemas."""
