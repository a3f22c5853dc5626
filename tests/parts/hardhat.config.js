// The chain of the tests: `hardhat node`, every transaction mined at once.
module.exports = { solidity: "0.8.28", networks: { hardhat: { chainId: 31337 } } };
