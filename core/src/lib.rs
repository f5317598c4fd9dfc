#![forbid(unsafe_code)]
//! The nouns that cross rooms and the rules they obey: no input or output, no clock, no threads.
