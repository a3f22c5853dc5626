// viem with keygate as its node: as client_ethers.mjs.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(`${process.env.KEYGATE_TEST_PARTS}/`);
const viem = require("viem");

const [url, token] = process.argv.slice(2);
const { typedData, to } = JSON.parse(readFileSync(0, "utf8"));
const transport = viem.http(url, { fetchOptions: { headers: { Authorization: `Bearer ${token}` } } });
const chain = viem.defineChain({
  id: Number(typedData.domain.chainId),
  name: "test",
  nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
  rpcUrls: { default: { http: [url] } },
});
const reader = viem.createPublicClient({ chain, transport });
const accounts = await viem.createWalletClient({ chain, transport }).getAddresses();
const [account] = accounts;
const wallet = viem.createWalletClient({ account, chain, transport });

const nonce = await reader.getTransactionCount({ address: account });
const { type, ...request } = await wallet.prepareTransactionRequest({ to, value: 1n, nonce });
const signed = await wallet.signTransaction(request);
const short = await wallet.request({ method: "eth_signTransaction", params: [{ from: account, to, nonce: viem.toHex(nonce + 1) }] });

const text = "sign in to nova \u{1f980}";
const message = await viem.recoverMessageAddress({ message: text, signature: await wallet.signMessage({ message: text }) });
const raw = { raw: "0x00ff10" };
const binary = await viem.recoverMessageAddress({ message: raw, signature: await wallet.signMessage({ message: raw }) });

const signature = await wallet.signTypedData(typedData);
const typed = await viem.recoverTypedDataAddress({ ...typedData, signature });

const denied = await wallet
  .request({ method: "eth_signTransaction", params: [{ from: account, data: "0x00", nonce: "0x0", gas: "0x186a0" }] })
  .catch((error) => error);
console.log(
  JSON.stringify({
    accounts,
    chainId: await wallet.getChainId(),
    balance: String(await reader.getBalance({ address: account })),
    raw: signed.raw,
    from: await viem.recoverTransactionAddress({ serializedTransaction: signed.raw }),
    hash: signed.tx.hash,
    filled: await viem.recoverTransactionAddress({ serializedTransaction: short.raw }),
    message,
    binary,
    typed,
    signature,
    denied: denied.name,
    why: denied.details,
  }),
);
