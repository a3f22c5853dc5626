// ethers with keygate as its node: client_ethers.mjs URL TOKEN, the typed data on standard input. Prints what came of it.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const { FetchRequest, JsonRpcProvider, Transaction, getBytes, verifyMessage, verifyTypedData } = require("ethers");

const [url, token] = process.argv.slice(2);
const { typedData, to } = JSON.parse(readFileSync(0, "utf8"));
const request = new FetchRequest(url);
request.setHeader("Authorization", `Bearer ${token}`);
const provider = new JsonRpcProvider(request);
const signer = await provider.getSigner();
const address = await signer.getAddress();
const { chainId } = await provider.getNetwork();

const nonce = await provider.getTransactionCount(address);
// ethers hands on what a node answers, which is not its raw transaction alone.
const signed = await signer.signTransaction({ to, value: 1n, nonce });
const tx = Transaction.from(signed.raw);

const text = "sign in to nova \u{1f980}";
const message = verifyMessage(text, await signer.signMessage(text));
const bytes = getBytes("0x00ff10");
const binary = verifyMessage(bytes, await signer.signMessage(bytes));

const { EIP712Domain, ...types } = typedData.types;
const signature = await signer.signTypedData(typedData.domain, types, typedData.message);
const typed = verifyTypedData(typedData.domain, types, typedData.message, signature);

const denied = await signer.signTransaction({ data: "0x00", nonce, gasLimit: 100000n }).catch((error) => error);
console.log(
  JSON.stringify({
    accounts: (await provider.listAccounts()).map((account) => account.address),
    chainId: Number(chainId),
    balance: String(await provider.getBalance(address)),
    raw: signed.raw,
    from: tx.from,
    hash: signed.tx.hash,
    message,
    binary,
    typed,
    signature,
    denied: denied.error.code,
    why: denied.error.message,
  }),
);
provider.destroy();
