// Whose key it is, says ethers: `node address.mjs spki BASE64` or `node address.mjs private 0xHEX`, as JSON.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const { computeAddress, SigningKey } = require("ethers");

const [kind, key] = process.argv.slice(2);
const publicKey =
  kind === "spki"
    ? // A SubjectPublicKeyInfo ends with the point: 0x04, x and y.
      `0x${Buffer.from(key, "base64").subarray(-65).toString("hex")}`
    : SigningKey.computePublicKey(key, false);
console.log(JSON.stringify({ address: computeAddress(publicKey), publicKey }));
