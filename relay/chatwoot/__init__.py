"""Everything about Chatwoot: API client, signatures, headers, message keys, test webhooks."""
