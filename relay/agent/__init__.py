"""A reference Agent SDK: drafts a reply to a customer's message and posts it as a private note in Chatwoot."""
