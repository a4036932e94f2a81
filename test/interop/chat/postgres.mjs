// Fresh databases in the PostgreSQL cluster that `make test-interop` starts beside the tests.
import { randomBytes } from "node:crypto";
import pg from "pg";

async function query(url, sql) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return await client.query(sql);
  } finally {
    await client.end();
  }
}

// freshDatabase resolves to the URL of an empty database, which is dropped after the test t, whoever is still connected to it.
export async function freshDatabase(t) {
  const cluster = process.env.PARLEY_TEST_POSTGRES_URL;
  if (!cluster) throw new Error("PARLEY_TEST_POSTGRES_URL is not set: run these tests by `make test-interop`");
  const name = `parley_${randomBytes(6).toString("hex")}`;
  await query(cluster, `CREATE DATABASE ${name}`);
  const url = new URL(cluster);
  url.pathname = `/${name}`;
  t.after(() => query(cluster, `DROP DATABASE ${name} WITH (FORCE)`));
  return url.href;
}
