// The work of keygate's signer, by ethers and the AWS SDK: takes keygate's request on a Unix socket, and answers what it
// signed. There is no policy, no ledger, and no second signature of the same request that is refused.
//
//     node server.mjs SOCKET KEY-ARN KMS-URL
//
// Packages are taken from VERSUS_NODE, where `npm ci` has put them.
import { Agent, createServer } from "node:http";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.VERSUS_NODE}/`);
const { KMSClient, SignCommand, GetPublicKeyCommand } = require("@aws-sdk/client-kms");
const { Signature, Transaction, computeAddress, getBytes, hexlify, recoverAddress, toBeHex } = require("ethers");

const [socket, KeyId, endpoint] = process.argv.slice(2);
// The SDK's 50 connections would be the limit: 20 ms each allow 2,500 a second, and 64 ask at once.
const httpAgent = new Agent({ keepAlive: true, maxSockets: 512 });
const kms = new KMSClient({ endpoint, requestHandler: { httpAgent } });

const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const spki = (await kms.send(new GetPublicKeyCommand({ KeyId }))).PublicKey;
const address = computeAddress(hexlify(spki.slice(-65)));

// r and s of the DER that KMS answers.
function integers(der) {
  const r = der.subarray(4, 4 + der[3]);
  return [r, der.subarray(6 + der[3])].map((bytes) => BigInt(hexlify(bytes)));
}

async function sign({ chainId, type, nonce, to, value, gas, maxFeePerGas, maxPriorityFeePerGas }) {
  const fields = { chainId, type, nonce, to, value, gasLimit: gas, maxFeePerGas, maxPriorityFeePerGas };
  const tx = Transaction.from(fields);
  const digest = tx.unsignedHash;
  const command = { KeyId, Message: getBytes(digest), MessageType: "DIGEST", SigningAlgorithm: "ECDSA_SHA_256" };
  const { Signature: der } = await kms.send(new SignCommand(command));
  let [r, s] = integers(der);
  if (s > order / 2n) s = order - s;
  for (const v of [27, 28]) {
    const signature = Signature.from({ r: toBeHex(r, 32), s: toBeHex(s, 32), v });
    if (recoverAddress(digest, signature) === address) {
      tx.signature = signature;
      return { raw: tx.serialized, hash: tx.hash, from: address };
    }
  }
  throw new Error("the signature is another key's");
}

createServer(async (request, response) => {
  let status = 200;
  let answer;
  try {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    answer = await sign(JSON.parse(Buffer.concat(chunks)));
  } catch (error) {
    [status, answer] = [500, { error: String(error) }];
  }
  const body = JSON.stringify(answer);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(body) });
  response.end(body);
}).listen(socket);
