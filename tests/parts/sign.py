"""What eth-account signs: reads a JSON list of {kind, key, of} from standard input, prints a list of what comes of each."""

import json
import sys

from eth_account import Account
from eth_account.messages import _hash_eip191_message, encode_defunct, encode_typed_data
from hexbytes import HexBytes

QUANTITIES = ("value", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "maxFeePerBlobGas", "chainId", "nonce", "gas")


def hexed(data):
    return "0x" + bytes(data).hex()


def transaction(key, of):
    fields = {name: int(value) if name in QUANTITIES else value for name, value in of.items()}
    for item in fields.get("authorizationList", []):
        for name in ("chainId", "nonce"):
            item[name] = int(item[name])
        for name in ("r", "s"):
            item[name] = int(item[name], 16)
    if fields["type"] == 0:
        del fields["type"]
    return {"raw": hexed(Account.sign_transaction(fields, key).raw_transaction)}


def signable(key, message):
    signed = Account.sign_message(message, key)
    return {"digest": hexed(_hash_eip191_message(message)), "signature": hexed(signed.signature)}


def message(key, of):
    text = {"hexstr": of["message"]} if of.get("encoding") == "hex" else {"text": of["message"]}
    return signable(key, encode_defunct(**text))


def typed_data(key, of):
    return signable(key, encode_typed_data(full_message=of))


def authorization(key, of):
    fields = {"chainId": int(of["chainId"]), "address": of["address"], "nonce": int(of["nonce"])}
    signed = Account.sign_authorization(fields, key)
    rs = signed.r.to_bytes(32, "big") + signed.s.to_bytes(32, "big")
    return {"digest": hexed(signed.authorization_hash), "signature": hexed(rs + bytes([27 + signed.y_parity]))}


SIGN = {"transaction": transaction, "message": message, "typed-data": typed_data, "authorization": authorization}
jobs = json.load(sys.stdin)
print(json.dumps([SIGN[job["kind"]](HexBytes(job["key"]), job["of"]) for job in jobs]))
