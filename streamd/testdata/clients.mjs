// The clients of the Durable Streams protocol as they come from npm, against the server at the URL that is given. Where
// this prints "kill", the server is killed and started again, while the clients go on.
import assert from "node:assert/strict"
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client"
import { createStateSchema } from "@durable-streams/state"
import { createStreamDB } from "@durable-streams/state/db"
import { durableStreamConnection, materializeSnapshotFromDurableStream, toDurableChatSessionResponse } from
  "@durable-streams/tanstack-ai-transport"

const server = process.argv[2]
const at = (name) => ({ url: `${server}/v1/stream/${name}`, contentType: "application/json" })
const backoffOptions = { initialDelay: 20, maxDelay: 200, multiplier: 1.3, maxRetries: Infinity }
const soon = () => new Promise((go) => setTimeout(go, 20))
const retrying = async (...args) => {
  for (;;) try { return await fetch(...args) } catch { await soon() }
}
const kill = () => console.log("kill")

// A producer whose requests are cut off adds each message once and in order, and readers have each of them once.
async function produce() {
  const count = 400
  const orders = await DurableStream.create({ ...at("orders"), backoffOptions })
  const errors = []
  const producer = new IdempotentProducer(orders, "shop", { lingerMs: 1, maxBatchBytes: 200,
    fetch: retrying, onError: (e) => errors.push(e) })
  const readers = ["sse", "long-poll"].map((live) => follow("orders", live))
  for (let n = 0; n < count; n++) {
    producer.append(JSON.stringify({ n }))
    if (n % 20 === 0) await new Promise((go) => setTimeout(go, 1)) // so that there are batches on their way
    if (n === 100 || n === 300) kill()
    if (n === 200) await producer.flush()
  }
  await producer.flush()
  await producer.close()
  assert.deepEqual(errors, [])
  const want = Array.from({ length: count }, (_, n) => ({ n }))
  assert.deepEqual(await (await stream({ ...at("orders"), offset: "-1", live: false })).json(), want)
  for (const got of await Promise.all(readers)) assert.deepEqual(got, want)
}

// follow returns all messages up to the end of the stream. A response that breaks off is taken up where it was.
async function follow(name, live) {
  const got = []
  for (let offset = "-1"; ;) {
    try {
      const response = await stream({ ...at(name), offset, live, backoffOptions })
      response.subscribeJson((batch) => {
        got.push(...batch.items)
        offset = batch.offset
      })
      await response.closed
      if (response.streamClosed) return got
    } catch (e) {
      if (e.message !== "terminated") throw e
    }
  }
}

// StreamDB has what the stream says, what is changed after a restart too; by SSE it goes on over an end, and no break.
async function materialize() {
  const any = { "~standard": { version: 1, vendor: "test", validate: (value) => ({ value }) } }
  const state = createStateSchema({ users: { schema: any, type: "user", primaryKey: "id" } })
  const events = await DurableStream.create({ ...at("state"), backoffOptions })
  await events.append(JSON.stringify(state.users.insert({ value: { id: "1", name: "Ada" } })))
  await events.append(JSON.stringify(state.users.insert({ value: { id: "2", name: "Bob" } })))
  const db = createStreamDB({ streamOptions: { ...at("state"), backoffOptions }, state,
    live: "long-poll" })
  await db.preload()
  assert.equal(db.collections.users.get("1").name, "Ada")
  kill()
  await events.append(JSON.stringify(state.users.update({ value: { id: "1", name: "Ada L." } })))
  await events.append(JSON.stringify(state.users.delete({ key: "2", headers: { txid: "last" } })))
  await db.utils.awaitTxId("last", 20_000)
  assert.equal(db.collections.users.get("1").name, "Ada L.")
  assert.equal(db.collections.users.size, 1)
  db.close()
}

// The transport of TanStack AI goes on where a reader was.
async function chat() {
  const text = (delta) => ({ type: "TEXT_MESSAGE_CONTENT", messageId: "m", delta })
  async function* answer(...words) {
    yield { type: "TEXT_MESSAGE_START", messageId: "m", role: "assistant" }
    for (const word of words) yield text(word)
  }
  const writeUrl = `${server}/v1/streams/${encodeURIComponent("runs/1")}`
  const say = (...words) => toDurableChatSessionResponse({ stream: { writeUrl, createIfMissing: true }, mode: "await",
    newMessages: [], responseStream: answer(...words) })
  assert.equal((await say("Hel", "lo")).ok, true)
  const snapshot = await materializeSnapshotFromDurableStream({ readUrl: writeUrl })
  assert.equal(JSON.stringify(snapshot.messages).includes("Hello"), true)
  kill()
  const resumed = durableStreamConnection({ sendUrl: writeUrl, readUrl: writeUrl, initialOffset: snapshot.offset,
    fetchClient: retrying })
  const chunks = resumed.subscribe()[Symbol.asyncIterator]()
  const first = chunks.next()
  for (;;) try { assert.equal((await say("again")).ok, true); break } catch (e) {
    if (e instanceof assert.AssertionError) throw e
  }
  assert.equal((await first).value.type, "TEXT_MESSAGE_START")
  assert.equal((await chunks.next()).value.delta, "again")
}

await produce()
await materialize()
await chat()
console.log("done")
process.exit(0)
