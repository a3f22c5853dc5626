"""What eth-account makes of a signed transaction: `verify.py 0x02f8...` prints its sender, hash and fields as JSON."""

import json
import sys

from eth_account import Account
from eth_account.typed_transactions import TypedTransaction
from eth_utils import keccak, to_checksum_address
from hexbytes import HexBytes
import rlp

raw = HexBytes(sys.argv[1])
seen = {"from": Account.recover_transaction(raw), "hash": "0x" + bytes(keccak(raw)).hex()}
if raw[0] == 3:
    # The hash is of the transaction without its blobs, which come in a list around it.
    bare = rlp.decode(raw[1:])
    bare = rlp.encode(bare[0]) if isinstance(bare[0], list) else raw[1:]
    seen["hash"] = "0x" + keccak(b"\x03" + bare).hex()


def number(field):
    return str(int.from_bytes(field, "big"))


if raw[0] in (1, 2, 3, 4):
    fields = TypedTransaction.from_bytes(raw).as_dict()
    seen["type"] = raw[0]
    for name in ("chainId", "nonce", "value", "gas", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas"):
        if name in fields:
            seen[name] = str(fields[name])
    to, data = bytes(fields["to"]), bytes(fields["data"])
else:
    nonce, gas_price, gas, to, value, data, v, _, _ = rlp.decode(raw)
    seen |= {"type": 0, "chainId": str((int.from_bytes(v, "big") - 35) // 2)}
    seen |= {"nonce": number(nonce), "gasPrice": number(gas_price), "gas": number(gas), "value": number(value)}
seen["to"] = to_checksum_address(to) if to else None
seen["data"] = "0x" + data.hex()
print(json.dumps(seen))
