// SPDX-License-Identifier: Apache-2.0
//
// The program of cmd/e2e/drivers for node-postgres; its doc.go says what it does.

'use strict'

const fs = require('fs')
const { Client } = require('pg')

const env = process.env

function tell(name, event, detail = '') {
  process.stdout.write(`${name}\t${event}\t${String(detail).split(/\s+/).join(' ')}\n`)
}

// Without ssl the driver asks for no TLS at all; "prefer" is unknown to it.
function tls(sslmode) {
  switch (sslmode) {
    case 'require':
      return { rejectUnauthorized: false }
    case 'verify-full':
      return { ca: fs.readFileSync(env.DRIVER_ROOTCERT) }
  }
  return false
}

function client(c) {
  const made = new Client({
    host: 'localhost', port: Number(c.port), database: 'postgres',
    user: env.DRIVER_USER, password: env.DRIVER_PASSWORD, ssl: tls(c.sslmode),
    options: c.options || undefined, application_name: 'node-postgres/' + c.name,
    connectionTimeoutMillis: 10000,
  })
  made.on('error', () => {}) // told by the query as well
  return made
}

async function connect(c) {
  const made = client(c)
  await made.connect()
  return made
}

async function value(conn, query) {
  const result = await conn.query(query)
  return Object.values(result.rows[0])[0]
}

function expect(what, got, want) {
  if (got !== want) throw new Error(`${what}: ${got}, want ${want}`)
}

// The driver sends a cancel request on a connection without TLS only.
async function cancelled(conn, c) {
  const sleep = value(conn, 'SELECT pg_sleep(60)').then(() => 'ended', (e) => e.code)
  let over = false
  sleep.then(() => { over = true })
  for (let pause = 200; ; pause = 1000) {
    const code = await Promise.race([sleep, new Promise((done) => setTimeout(done, pause))])
    if (over) return expect('the cancelled statement', code, '57014')
    const canceller = client({ ...c, sslmode: '' })
    canceller.connection.on('error', () => {})
    canceller.cancel(conn, conn._activeQuery)
    await new Promise((done) => canceller.connection.once('end', done))
  }
}

async function again(c) {
  for (const end = Date.now() + 30000; ; ) {
    try {
      const conn = await connect(c)
      const addr = await value(conn, 'SELECT host(inet_server_addr())')
      await conn.end()
      return addr
    } catch (e) {
      if (Date.now() > end) throw e
      await new Promise((done) => setTimeout(done, 50))
    }
  }
}

async function work(c) {
  const conn = await connect(c)
  if (c.options) {
    tell(c.name, 'standby', await value(conn, "SELECT host(inet_server_addr()) || ' ' || pg_is_in_recovery()"))
    return conn.end()
  }
  expect('query', await value(conn, { text: 'SELECT $1::int * 7', values: [6] }), 42)
  for (let i = 0; i < 10; i++) {
    expect('prepared statement', await value(conn, { name: 'p', text: 'SELECT $1::int + 1', values: [i] }), i + 1)
  }
  await cancelled(conn, c)
  expect('query after the cancelled one', await value(conn, "SELECT 'alive'"), 'alive')
  tell(c.name, 'ready')
  try {
    await value(conn, 'SELECT pg_sleep(600)')
    throw new Error('the long statement ended without an error')
  } catch (e) {
    tell(c.name, 'lost', `${e.code} ${e.message}`)
  }
  tell(c.name, 'again', await again(c))
}

for (const arg of process.argv.slice(2)) {
  const [name, port, sslmode, options] = arg.split(',')
  const c = { name, port, sslmode, options }
  work(c).catch((e) => tell(name, 'failed', e.stack))
}
