// viem with keygate as its node: as send_ethers.mjs.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const viem = require("viem");

const [url, token] = process.argv.slice(2);
const { to, contract, typedData } = JSON.parse(readFileSync(0, "utf8"));
const transport = viem.http(url, { fetchOptions: { headers: { Authorization: `Bearer ${token}` } } });
const chain = viem.defineChain({
  id: Number(typedData.domain.chainId),
  name: "test",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url] } },
});
const reader = viem.createPublicClient({ chain, transport, pollingInterval: 200 });
const [account] = await viem.createWalletClient({ chain, transport }).getAddresses();
const wallet = viem.createWalletClient({ account, chain, transport });

const mined = async (hash) => (await reader.waitForTransactionReceipt({ hash })).status === "success" ? 1 : 0;
const hash = await wallet.sendTransaction({ to, value: 5n });
const transfer = await mined(hash);
const abi = viem.parseAbi([
  "function transfer(address to, uint256 amount) returns (bool)",
  "function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s)",
]);
const call = async (functionName, args) =>
  mined(await wallet.writeContract({ address: contract, abi, functionName, args }));
const tokens = await call("transfer", [to, 7n]);
const { owner, spender, value, deadline } = typedData.message;
const { v, r, s } = viem.parseSignature(await wallet.signTypedData(typedData));
const permit = await call("permit", [owner, spender, BigInt(value), BigInt(deadline), Number(v), r, s]);
const denied = await wallet.sendTransaction({ data: "0x00", gas: 100000n }).catch((error) => error);
console.log(JSON.stringify({ statuses: [transfer, tokens, permit], hash, why: denied.details }));
