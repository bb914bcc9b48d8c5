"""The runbook's SQL, verbatim."""

RETRY_METRICS = """
SELECT
  value->>'attempts' as attempts,
  value->>'success' as success,
  value->>'durationMs' as duration_ms,
  value->>'finalStatus' as status
FROM dashboard_facts
WHERE fact_type = 'support.webhook.retry'
ORDER BY recorded_at DESC
LIMIT 10;
"""
DEAD_LETTER_QUEUE = """
SELECT
  value->'payload' as original_payload,
  value->>'attempts' as attempts,
  value->>'lastError' as error,
  metadata->>'timestamp' as failed_at
FROM dashboard_facts
WHERE fact_type = 'support.webhook.dead_letter'
ORDER BY recorded_at DESC;
"""
RECENT_ACTIVITY = """
-- Check recent webhook activity
SELECT
  COUNT(*) as total,
  SUM(CASE WHEN value->>'success' = 'true' THEN 1 ELSE 0 END) as successful,
  AVG((value->>'attempts')::int) as avg_attempts
FROM dashboard_facts
WHERE fact_type = 'support.webhook.retry'
  AND recorded_at > NOW() - INTERVAL '1 hour';
"""
FAILURE_REASONS = """
-- Check failure reasons
SELECT
  value->>'finalStatus' as status,
  COUNT(*) as count
FROM dashboard_facts
WHERE fact_type = 'support.webhook.retry'
  AND value->>'success' = 'false'
  AND recorded_at > NOW() - INTERVAL '1 hour'
GROUP BY value->>'finalStatus';
"""
RECENT_DLQ_ENTRIES = """
-- Recent DLQ entries
SELECT
  value->>'lastError' as error,
  COUNT(*) as occurrences
FROM dashboard_facts
WHERE fact_type = 'support.webhook.dead_letter'
  AND recorded_at > NOW() - INTERVAL '24 hours'
GROUP BY value->>'lastError'
ORDER BY occurrences DESC;
"""
FAILED_PAYLOADS = """
   -- Extract failed payloads
   SELECT value->'payload' FROM dashboard_facts
   WHERE fact_type = 'support.webhook.dead_letter'
   ORDER BY recorded_at DESC;
"""
SUCCESS_RATE = """
SELECT
  ROUND(
    100.0 * SUM(CASE WHEN value->>'success' = 'true' THEN 1 ELSE 0 END) / COUNT(*),
    2
  ) as success_rate_pct
FROM dashboard_facts
WHERE fact_type = 'support.webhook.retry'
  AND recorded_at > NOW() - INTERVAL '1 hour';
"""
AVERAGE_RESPONSE_TIME = """
SELECT
  ROUND(AVG((value->>'durationMs')::numeric), 0) as avg_ms
FROM dashboard_facts
WHERE fact_type = 'support.webhook.retry'
  AND value->>'success' = 'true'
  AND recorded_at > NOW() - INTERVAL '1 hour';
"""
DLQ_SIZE = """
SELECT COUNT(*) as dlq_entries
FROM dashboard_facts
WHERE fact_type = 'support.webhook.dead_letter'
  AND recorded_at > NOW() - INTERVAL '24 hours';
"""
