// ethers with keygate as its node: send_ethers.mjs URL TOKEN, a job on standard input. Sends, and prints what came of it.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const { Contract, FetchRequest, JsonRpcProvider, Signature } = require("ethers");

const [url, token] = process.argv.slice(2);
const { to, contract, typedData } = JSON.parse(readFileSync(0, "utf8"));
const request = new FetchRequest(url);
request.setHeader("Authorization", `Bearer ${token}`);
const provider = new JsonRpcProvider(request, undefined, { pollingInterval: 200 });
const signer = await provider.getSigner();

const transfer = await (await signer.sendTransaction({ to, value: 5n })).wait();
const abi = [
  "function transfer(address to, uint256 amount) returns (bool)",
  "function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)",
];
const dollar = new Contract(contract, abi, signer);
const tokens = await (await dollar.transfer(to, 7n)).wait();
const { EIP712Domain, ...types } = typedData.types;
const { owner, spender, value, deadline } = typedData.message;
const { v, r, s } = Signature.from(await signer.signTypedData(typedData.domain, types, typedData.message));
const permit = await (await dollar.permit(owner, spender, value, deadline, v, r, s)).wait();
const denied = await signer.sendTransaction({ data: "0x00", gasLimit: 100000n }).catch((error) => error);
console.log(
  JSON.stringify({
    statuses: [transfer, tokens, permit].map((receipt) => receipt.status),
    hash: transfer.hash,
    why: denied.error.message,
  }),
);
provider.destroy();
