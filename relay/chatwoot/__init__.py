"""What the relay knows of Chatwoot: API client, signatures, headers, message keys, test webhooks."""
