"""A KMS for tests: moto, which signs what it is given, and on request fails as the real one does.

    kms.py [PORT]    port 0 picks a free one; the first line on standard output is the URL

moto ignores MessageType=DIGEST and hashes the digest once more; here it is signed as it is, so that signatures verify
and about half have a high S, as those of AWS.

Faults, which moto has none of, are ordered over HTTP:

    POST /_faults  {"mode": "throttle", "count": 2, "key": "KEY-ID", "action": "Sign", "seconds": 0}
    GET  /_faults?key=KEY-ID   how often each action was asked for, for that key: {"Sign": 3, "GetPublicKey": 1}

The next `count` calls of `action` (left out: Sign) for `key` (left out: any) in `region` (left out: any) are treated so;
mode "none" ends it. GET takes a region, too.

moto has no import of key material. Here GetParametersForImport gives a wrapping key, and ImportKeyMaterial unwraps what
it is given (RSAES_OAEP_SHA_256), which must be PKCS #8 of a secp256k1 key, as AWS has it.
"""

import base64
import collections
import io
import json
import logging
import sys
import threading
import time
import urllib.parse

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.kms.exceptions import ValidationException
from moto.kms.responses import KmsResponse
from moto.kms.utils import ECDSAPrivateKey
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

asked = threading.local()
moto_response_sign = KmsResponse.sign
moto_key_sign = ECDSAPrivateKey.sign


def response_sign(self):
    asked.digest = self._get_param("MessageType") == "DIGEST"
    return moto_response_sign(self)


def key_sign(self, message, signing_algorithm):
    if not asked.digest:
        return moto_key_sign(self, message, signing_algorithm)
    if len(message) != 32:
        raise ValueError("Digest is invalid length for algorithm")
    return self.private_key.sign(message, ec.ECDSA(Prehashed(hashes.SHA256())))


KmsResponse.sign = response_sign
ECDSAPrivateKey.sign = key_sign

wrapping_keys = {}
OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


def external_key(self):
    key = self.kms_backend.keys[self._get_param("KeyId").rpartition("/")[2]]
    if key.origin != "EXTERNAL":
        raise ValidationException(f"{key.arn} origin is {key.origin} which is not valid for this operation.")
    return key


def get_parameters_for_import(self):
    key = external_key(self)
    if self._get_param("WrappingAlgorithm") != "RSAES_OAEP_SHA_256":
        raise ValidationException("this emulator unwraps RSAES_OAEP_SHA_256 only")
    bits = int(self._get_param("WrappingKeySpec").removeprefix("RSA_"))
    wrapping = rsa.generate_private_key(65537, bits)
    token = b"token of " + key.id.encode()
    wrapping_keys[token] = wrapping
    public = wrapping.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    answer = {"KeyId": key.arn, "ImportToken": base64.b64encode(token).decode()}
    return json.dumps(answer | {"PublicKey": base64.b64encode(public).decode(), "ParametersValidTo": time.time() + 86400})


def import_key_material(self):
    key = external_key(self)
    wrapping = wrapping_keys[base64.b64decode(self._get_param("ImportToken"))]
    material = wrapping.decrypt(base64.b64decode(self._get_param("EncryptedKeyMaterial")), OAEP)
    private = serialization.load_der_private_key(material, None)
    pkcs8 = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    if private.private_bytes(*pkcs8) != material or not isinstance(private.curve, ec.SECP256K1):
        raise ValidationException("the key material is not PKCS #8 of a secp256k1 key")
    key.private_key.private_key = private
    return json.dumps({"KeyId": key.arn})


KmsResponse.get_parameters_for_import = get_parameters_for_import
KmsResponse.import_key_material = import_key_material

# Error answers as AWS gives them: status, type, message.
ERRORS = {
    "throttle": ("400 Bad Request", "ThrottlingException", "Rate exceeded"),
    "error": ("500 Internal Server Error", "KMSInternalException", "injected"),
    "unavailable": ("503 Service Unavailable", "KeyUnavailableException", "injected"),
    "disabled": ("400 Bad Request", "DisabledException", "the key is disabled"),
    "denied": ("400 Bad Request", "AccessDeniedException", "not authorized to perform this on the resource"),
    "pending-deletion": ("400 Bad Request", "KMSInvalidStateException", "the key is pending deletion"),
}
# Signatures that must never reach a caller.
BAD_SIGNATURES = {
    "wrong-signature": lambda digest: another_key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))),
    "not-der": lambda digest: b"\x00" * 71,
    "trailing-bytes": lambda digest: another_key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))) + b"\x00",
    "zero": lambda digest: bytes.fromhex("3006020100020100"),
    "empty": lambda digest: b"",
}
another_key = ec.generate_private_key(ec.SECP256K1())
lock = threading.Lock()
faults = []
calls = collections.defaultdict(collections.Counter)


def take_fault(action, key, region):
    """The fault ordered for this call, if any. Counts the call."""
    with lock:
        calls[key][action] += 1
        calls[key, region][action] += 1
        for fault in faults:
            if fault["action"] == action and fault["key"] in (None, key) and fault["region"] in (None, region):
                fault["count"] -= 1
                if fault["count"] <= 0:
                    faults.remove(fault)
                return fault
    return None


def order(environ, start_response):
    """The faults' own API."""
    if environ["REQUEST_METHOD"] == "POST":
        order = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        fault = {"action": "Sign", "key": None, "region": None, "count": 1, "seconds": 0} | order
        known = {"none", "latency", "hang", "reset"} | ERRORS.keys() | BAD_SIGNATURES.keys()
        if fault["mode"] not in known or fault.keys() != {"mode", "action", "key", "region", "count", "seconds"}:
            start_response("400 Bad Request", [("Content-Type", "text/plain")])
            return [f"no such fault: {order}; modes: {sorted(known)}\n".encode()]
        with lock:
            same = ["action", "key", "region"]
            faults[:] = [f for f in faults if any(f[field] != fault[field] for field in same)]
            if fault["mode"] != "none":
                faults.append(fault)
        answer = {}
    else:
        query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""))
        with lock:
            key = query["key"][0]
            answer = dict(calls[key, query["region"][0]] if "region" in query else calls[key])
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]


def answer_json(start_response, status, body):
    start_response(status, [("Content-Type", "application/x-amz-json-1.1")])
    return [json.dumps(body).encode()]


moto = DomainDispatcherApplication(create_backend_app)


def app(environ, start_response):
    if environ["PATH_INFO"] == "/_faults":
        return order(environ, start_response)
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if not target.startswith("TrentService."):
        # IAM, STS.
        return moto(environ, start_response)
    call = json.loads(body or b"{}")
    action = target.rpartition(".")[2]
    # Credential=ID/DAY/REGION/kms/aws4_request
    region = (environ.get("HTTP_AUTHORIZATION", "").split("/") + [""] * 3)[2]
    # A key is asked for by id or by ARN.
    fault = take_fault(action, str(call.get("KeyId", "")).rpartition("/")[2], region)
    mode = fault["mode"] if fault else "none"
    if mode == "hang":
        time.sleep(fault["seconds"] or 3600)
        raise ConnectionAbortedError
    if mode == "reset":
        raise ConnectionAbortedError
    if mode in ERRORS:
        status, name, message = ERRORS[mode]
        return answer_json(start_response, status, {"__type": name, "message": message})
    if mode in BAD_SIGNATURES:
        signature = BAD_SIGNATURES[mode](base64.b64decode(call["Message"]))
        answer = {"KeyId": call["KeyId"], "Signature": base64.b64encode(signature).decode()}
        return answer_json(start_response, "200 OK", answer | {"SigningAlgorithm": "ECDSA_SHA_256"})
    done = list(moto(environ, start_response))
    if mode == "latency":
        # The signature is made: what a caller that gives up now does not know.
        time.sleep(fault["seconds"])
    return done


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass

    def connection_dropped(self, *_):
        # Without an answer there is nothing to keep alive.
        self.close_connection = True


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    server = make_server("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0, app, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
