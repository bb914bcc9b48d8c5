// A webhook relay as a Node service would be written: Express, pg, two processes.
//
// `node peer.js PORT DSN AGENT durable`: stores a webhook before it forwards it, and its outcome and fact after that.
// `node peer.js PORT DSN AGENT afterwards`: forwards it and then stores the fact; a crash in between loses it.
"use strict";

const cluster = require("node:cluster");
const http = require("node:http");
const express = require("express");
const { Pool } = require("pg");

const PROCESSES = 2;
const ATTEMPTS = 3;
const TABLES = `
  CREATE TABLE IF NOT EXISTS webhooks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, delivery_id text NOT NULL UNIQUE, body bytea NOT NULL,
    state text NOT NULL, received_at timestamptz NOT NULL DEFAULT now(), finished_at timestamptz);
  CREATE TABLE IF NOT EXISTS dashboard_facts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, fact_type text NOT NULL, scope text NOT NULL,
    value jsonb NOT NULL, metadata jsonb NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now());
  CREATE INDEX IF NOT EXISTS dashboard_facts_type_time ON dashboard_facts (fact_type, recorded_at DESC);`;
const STORE = {
  name: "store",
  text: `INSERT INTO webhooks (delivery_id, body, state) VALUES ($1, $2, 'forwarding')
         ON CONFLICT (delivery_id) DO NOTHING RETURNING id`,
};
const FACT = {
  name: "fact",
  text: `INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
         VALUES ('support.webhook.retry', 'support', $1, $2)`,
};
const FINISH = {
  name: "finish",
  text: `WITH finished AS (UPDATE webhooks SET state = $4, finished_at = now() WHERE id = $3 RETURNING id)
         INSERT INTO dashboard_facts (fact_type, scope, value, metadata)
         SELECT 'support.webhook.retry', 'support', $1, $2 FROM finished`,
};

const [port, dsn, agent, mode] = process.argv.slice(2);

async function prepare() {
  const pool = new Pool({ connectionString: dsn, max: 1 });
  await pool.query(TABLES);
  await pool.end();
  for (let n = 0; n < PROCESSES; n += 1) cluster.fork();
}

function serve() {
  const pool = new Pool({ connectionString: dsn, max: 20 });
  const connections = new http.Agent({ keepAlive: true });
  const target = new URL("/webhooks/chatwoot", agent);

  function post(body, deliveryId) {
    return new Promise((resolve, reject) => {
      const headers = {
        "content-type": "application/json", "content-length": body.length, "x-chatwoot-delivery": deliveryId,
      };
      const request = http.request(target, { method: "POST", agent: connections, headers, timeout: 30000 }, (answer) => {
        answer.resume();
        answer.on("end", () => resolve(answer.statusCode));
        answer.on("error", reject);
      });
      request.on("timeout", () => request.destroy(new Error("timeout")));
      request.on("error", reject);
      request.end(body);
    });
  }

  async function forward(body, deliveryId) {
    for (let number = 1; ; number += 1) {
      const status = await post(body, deliveryId).catch(() => 0);
      if (status >= 200 && status < 300) return { attempts: number, success: true, finalStatus: String(status) };
      if (number === ATTEMPTS) return { attempts: number, success: false, finalStatus: String(status) };
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** (number - 1)));
    }
  }

  const app = express();
  app.get("/health", (_request, response) => response.json({ status: "ok" }));
  app.post("/api/webhooks/chatwoot", express.raw({ type: "application/json", limit: "32mb" }), async (request, response) => {
    const began = Date.now();
    const deliveryId = request.get("x-chatwoot-delivery");
    const payload = JSON.parse(request.body);
    let row = null;
    if (mode === "durable") {
      const stored = await pool.query({ ...STORE, values: [deliveryId, request.body] });
      if (stored.rowCount === 0) return response.json({ success: true, duplicate: true });
      row = stored.rows[0].id;
    }
    const outcome = await forward(request.body, deliveryId);
    const value = JSON.stringify({ ...outcome, durationMs: Date.now() - began });
    const metadata = JSON.stringify({ deliveryId, event: payload.event, conversationId: payload.conversation?.id });
    if (mode === "durable") {
      const state = outcome.success ? "delivered" : "dead";
      await pool.query({ ...FINISH, values: [value, metadata, row, state] });
    } else {
      await pool.query({ ...FACT, values: [value, metadata] });
    }
    return response.status(outcome.success ? 200 : 500).json({ success: outcome.success, delivery_id: deliveryId });
  });
  app.listen(Number(port), "127.0.0.1");
}

if (cluster.isPrimary) prepare();
else serve();
