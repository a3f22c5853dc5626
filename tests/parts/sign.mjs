// What ethers signs: reads a JSON list of { kind, key, of } from standard input, prints a JSON list of what comes of
// each.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const ethers = require("ethers");
const { Transaction, SigningKey, TypedDataEncoder, getBytes, hashAuthorization, hashMessage } = ethers;

const authorization = ({ chainId, address, nonce, yParity, r, s }) => ({
  chainId: BigInt(chainId),
  address,
  nonce: BigInt(nonce),
  signature: { yParity, r, s },
});
const quantities = ["value", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas", "chainId"];

function transaction(of) {
  const { gas, nonce, authorizationList, ...fields } = of;
  for (const name of quantities) if (name in fields) fields[name] = BigInt(fields[name]);
  fields.gasLimit = BigInt(gas);
  fields.nonce = Number(nonce);
  if (authorizationList) fields.authorizationList = authorizationList.map(authorization);
  return Transaction.from(fields);
}

const sign = {
  transaction(key, of) {
    const tx = transaction(of);
    tx.signature = key.sign(tx.unsignedHash);
    return { digest: tx.unsignedHash, raw: tx.serialized };
  },
  message(key, of) {
    const digest = hashMessage(of.encoding === "hex" ? getBytes(of.message) : of.message);
    return { digest, signature: key.sign(digest).serialized };
  },
  "typed-data"(key, of) {
    const { EIP712Domain, ...types } = of.types;
    const digest = TypedDataEncoder.hash(of.domain, types, of.message);
    return { digest, signature: key.sign(digest).serialized };
  },
  authorization(key, of) {
    const digest = hashAuthorization({ ...of, chainId: BigInt(of.chainId), nonce: BigInt(of.nonce) });
    return { digest, signature: key.sign(digest).serialized };
  },
  // Of what somebody else has signed.
  recover(key, { kind, of, signature }) {
    const { digest } = sign[kind](key, of);
    return { digest, address: ethers.recoverAddress(digest, signature) };
  },
};

const jobs = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(jobs.map(({ kind, key, of }) => sign[kind](new SigningKey(key), of))));
