"""web3.py with keygate as its node: as send_ethers.mjs."""

import json
import sys

from eth_utils import to_bytes
from web3 import Web3

url, token = sys.argv[1:]
job = json.load(sys.stdin)
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
w3 = Web3(Web3.HTTPProvider(url, request_kwargs={"headers": headers}))
address, to, typed_data = w3.eth.accounts[0], job["to"], job["typedData"]


def inputs(*types):
    return [{"name": f"_{n}", "type": kind} for n, kind in enumerate(types)]


def function(name, *types):
    return {"type": "function", "name": name, "stateMutability": "nonpayable", "inputs": inputs(*types), "outputs": []}


def mined(tx_hash):
    return w3.eth.wait_for_transaction_receipt(tx_hash).status


abi = [
    function("transfer", "address", "uint256"),
    function("permit", "address", "address", "uint256", "uint256", "uint8", "bytes32", "bytes32"),
]
dollar = w3.eth.contract(address=Web3.to_checksum_address(job["contract"]), abi=abi)
tx_hash = w3.eth.send_transaction({"from": address, "to": to, "value": 5})
transfer = mined(tx_hash)
tokens = mined(dollar.functions.transfer(to, 7).transact({"from": address}))
signed = w3.provider.make_request("eth_signTypedData_v4", [address, json.dumps(typed_data)])
signature = to_bytes(hexstr=signed["result"])
of = typed_data["message"]
args = [of["owner"], of["spender"], int(of["value"]), of["deadline"], signature[64], signature[:32], signature[32:64]]
permit = mined(dollar.functions.permit(*args).transact({"from": address}))
try:
    w3.eth.send_transaction({"from": address, "data": "0x00", "gas": 100000})
    why = None
except Exception as error:
    why = str(error)
print(json.dumps({"statuses": [transfer, tokens, permit], "hash": Web3.to_hex(tx_hash), "why": why}))
