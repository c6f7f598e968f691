//! The dashboard as pure functions: a view in, a page of HTML out.
//!
//! This house owns how Roadstead looks: the view structs ([`view`]), the addresses ([`urls`]),
//! the templates, the style sheet and the scripts. It does no input or output, reads no clock
//! (every view carries `now`), and knows neither the store nor the planner nor the web
//! framework. Everything works without JavaScript; the scripts only save reloading.

pub mod urls;
pub mod view;
