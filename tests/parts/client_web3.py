"""web3.py with keygate as its node: as client_ethers.mjs."""

import json
import sys

from eth_account import Account
from eth_account.messages import encode_defunct, encode_typed_data
from web3 import Web3

url, token = sys.argv[1:]
job = json.load(sys.stdin)
typed_data, to = job["typedData"], job["to"]
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
w3 = Web3(Web3.HTTPProvider(url, request_kwargs={"headers": headers}))
accounts = w3.eth.accounts
address = accounts[0]


def ask(method, *params):
    answer = w3.provider.make_request(method, list(params))
    return answer["result"] if "result" in answer else answer["error"]


nonce = w3.eth.get_transaction_count(address)
signed = w3.eth.sign_transaction({"from": address, "to": to, "value": 1, "nonce": nonce})
raw = Web3.to_hex(signed["raw"])

text = "sign in to nova \U0001f980"
message = Account.recover_message(encode_defunct(text=text), signature=ask("personal_sign", Web3.to_hex(text=text), address))
binary = Account.recover_message(
    encode_defunct(hexstr="0x00ff10"), signature=ask("personal_sign", "0x00ff10", address)
)
signature = ask("eth_signTypedData_v4", address, json.dumps(typed_data))
typed = Account.recover_message(encode_typed_data(full_message=typed_data), signature=signature)
denied = ask("eth_signTransaction", {"from": address, "data": "0x00", "nonce": "0x0", "gas": "0x186a0"})
print(
    json.dumps(
        {
            "accounts": accounts,
            "chainId": w3.eth.chain_id,
            "balance": str(w3.eth.get_balance(address)),
            "raw": raw,
            "from": Account.recover_transaction(raw),
            "hash": Web3.to_hex(signed["tx"]["hash"]),
            "message": message,
            "binary": binary,
            "typed": typed,
            "signature": signature,
            "denied": denied["code"],
            "why": denied["message"],
        }
    )
)
