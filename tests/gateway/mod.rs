//! The gateway, from outside. One file a feature; [`edge`] and [`client`] are what they share.

mod admin;
mod api;
mod attacks;
mod cli;
mod client;
mod demo;
mod drain;
mod edge;
mod failures;
mod forwarding;
mod frames;
mod front_door;
mod headers;
mod http;
mod http2;
mod http2_answers;
mod http2_servers;
mod lane;
mod limits;
mod listeners;
mod live;
mod novabank;
mod parity;
mod reload;
mod routing;
mod split;
mod streaming;
mod telemetry;
mod timeouts;
mod tls;
mod tls_check;
mod tls_reload;
mod upstream_tls;

use client::{Client, Reply};
use edge::{Edge, Simple, TLS, problem, tls_home};
