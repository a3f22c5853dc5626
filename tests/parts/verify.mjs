// What ethers makes of a signed transaction: `node verify.mjs 0x02f8...`, or `@FILE` with it, prints its sender, hash and
// fields as JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const { Transaction, Signature } = require("ethers");

const given = process.argv[2];
const tx = Transaction.from(given.startsWith("@") ? readFileSync(given.slice(1), "utf8") : given);
const text = (n) => (n === null || n === undefined ? null : n.toString());
console.log(
  JSON.stringify({
    from: tx.from,
    hash: tx.hash,
    publicKey: tx.fromPublicKey,
    unsignedHash: tx.unsignedHash,
    type: tx.type,
    chainId: text(tx.chainId),
    nonce: text(tx.nonce),
    to: tx.to,
    value: text(tx.value),
    data: tx.data,
    gas: text(tx.gasLimit),
    gasPrice: text(tx.gasPrice),
    maxFeePerGas: text(tx.maxFeePerGas),
    maxPriorityFeePerGas: text(tx.maxPriorityFeePerGas),
    accessList: tx.accessList,
    maxFeePerBlobGas: text(tx.maxFeePerBlobGas),
    blobVersionedHashes: tx.blobVersionedHashes,
    blobs: tx.blobs?.map(({ commitment }) => commitment),
    authorizations: tx.authorizationList?.map(({ address }) => address),
    r: tx.signature.r,
    s: tx.signature.s,
    yParity: Signature.from(tx.signature).yParity,
  }),
);
