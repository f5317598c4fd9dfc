//! Products: rows of weights times rows of activations, the gate and the norm on the way.

use super::decode;
use super::shader::{Kernel, Shape, entry, header, lanes, reduction, sum_lanes};
use crate::model::format::BlockFormat;
use std::fmt::Write as _;

/// Names of the parameters of matrices: where each begins, its rows here, where its output begins and how long its rows
/// are, each three times.
const MATRICES: &[&str] =
    &["base0", "base1", "base2", "rows0", "rows1", "rows2", "out0", "out1", "out2", "stride0", "stride1", "stride2"];

/// Chooses the matrix that a row of the launch belongs to.
const SELECT: &str = "  let all = P.rows0 + P.rows1 + P.rows2;
  let wanted = group * P.per_group + slot;
  let at = min(wanted, all - 1u);
  var local = at;
  var base = P.base0;
  if (at >= P.rows0) { local = at - P.rows0; base = P.base1; }
  if (at >= P.rows0 + P.rows1) { local = at - P.rows0 - P.rows1; base = P.base2; }
";

/// Stores `acc{t}` of each row of the tile.
fn store(tile: u32, add: bool) -> String {
    let mut text = String::from("  if (lane == 0u && wanted < all) {\n");
    for t in 0..tile {
        let value = |out: &str, place: &str| {
            if add { format!("{out}[{place}] = {out}[{place}] + acc{t};") } else { format!("{out}[{place}] = acc{t};") }
        };
        let place = |i: u32| format!("P.out{i} + (t0 + {t}u) * P.stride{i} + local");
        let _ = write!(
            text,
            "    if (t0 + {t}u < P.tokens) {{\n      if (at < P.rows0) {{ {} }}\n      else if (at < P.rows0 + P.rows1) \
             {{ {} }}\n      else {{ {} }}\n    }}\n",
            value("O0", &place(0)),
            value("O1", &place(1)),
            value("O2", &place(2))
        );
    }
    text + "  }\n"
}

/// `acc = silu(acc) * other`, stored as the one output.
fn store_gated(tile: u32) -> String {
    let mut text = String::from("  if (lane == 0u && wanted < P.rows0) {\n");
    for t in 0..tile {
        let _ = writeln!(
            text,
            "    if (t0 + {t}u < P.tokens) {{ O0[P.out0 + (t0 + {t}u) * P.stride0 + at] = acc{t} / (1.0 + exp(-acc{t})) * \
             up{t}; }}"
        );
    }
    text + "  }\n"
}

const GATED_SELECT: &str = "  let wanted = group * P.per_group + slot;
  let at = min(wanted, P.rows0 - 1u);
";

/// Adds the products of eight vectors of weights with `tile` rows to `acc` or `up`.
fn multiply(to: &str, tile: u32, norm: bool, ragged: bool, format: BlockFormat, base: &str) -> String {
    let mut text = format!("    {{\n    let row = {base};\n{}", decode::weights(format));
    let load = |table: &str, from: &str, i: usize| {
        if ragged {
            format!("select(0.0, {table}[{from} + {i}u], c * 32u + {i}u < P.columns)")
        } else {
            format!("{table}[{from} + {i}u]")
        }
    };
    let four = |table: &str, from: &str, k: usize| {
        let parts: Vec<String> = (0..4).map(|i| load(table, from, 4 * k + i)).collect();
        format!("vec4<f32>({})", parts.join(", "))
    };
    for k in 0..8 {
        let weight = if norm { format!("w{k} * {}", four("N", "nb", k)) } else { format!("w{k}") };
        let _ = writeln!(text, "    let v{k} = {weight};");
    }
    for t in 0..tile {
        let terms: Vec<String> = (0..8).map(|k| format!("dot(v{k}, {})", four("X", &format!("xb{t}"), k))).collect();
        let _ =
            writeln!(text, "    {to}{t} = {to}{t} + (({}) + ({}));", terms[..4].join(" + "), terms[4..].join(" + "));
    }
    text + "    }\n"
}

const PRODUCT: &[&str] =
    &["per_group", "grid", "groups", "tokens", "columns", "chunks", "row_words", "scales", "x", "n", "epsilon"];

pub(super) fn product(
    shape: Shape,
    format: BlockFormat,
    tile: u32,
    norm: bool,
    add: bool,
    ragged: bool,
    gated: bool,
) -> Kernel {
    let params: Vec<&str> = PRODUCT.iter().chain(MATRICES).copied().collect();
    let operands = [("X", "f32"), ("N", "f32"), ("O0", "f32"), ("O1", "f32"), ("O2", "f32")];
    let mut text = header(&params, true, &operands);
    text += &reduction(shape);
    text += &entry(shape);
    text += "  let group = g.y * P.grid + g.x;\n  if (group >= P.groups) { return; }\n";
    let _ = writeln!(text, "  let t0 = g.z * {tile}u;");
    text += &lanes(shape);
    text += if gated { GATED_SELECT } else { SELECT };
    for t in 0..tile {
        let _ = writeln!(text, "  let x{t} = P.x + min(t0 + {t}u, P.tokens - 1u) * P.columns;\n  var acc{t} = 0.0;");
        if gated {
            let _ = writeln!(text, "  var up{t} = 0.0;");
        }
    }
    if norm {
        // Each group of lanes adds the squares up for itself: no wait for the other rows of the workgroup.
        for t in 0..tile {
            let _ = write!(
                text,
                "  var s{t} = 0.0;\n  for (var i = lane; i < P.columns; i = i + {}u) {{ let x = X[x{t} + i]; s{t} = s{t} + \
                 x * x; }}\n{}  s{t} = 1.0 / sqrt(s{t} / f32(P.columns) + bitcast<f32>(P.epsilon));\n",
                shape.lanes,
                sum_lanes(shape, &format!("s{t}"))
            );
        }
    }
    let _ = writeln!(text, "  for (var c = lane; c < P.chunks; c = c + {}u) {{", shape.lanes);
    for t in 0..tile {
        let _ = writeln!(text, "    let xb{t} = x{t} + c * 32u;");
    }
    if norm {
        text += "    let nb = P.n + c * 32u;\n";
    }
    if gated {
        text += &multiply("acc", tile, norm, ragged, format, "P.base0 + at * P.row_words");
        text += &multiply("up", tile, norm, ragged, format, "P.base1 + at * P.row_words");
    } else {
        text += &multiply("acc", tile, norm, ragged, format, "base + local * P.row_words");
    }
    text += "  }\n";
    for t in 0..tile {
        for variable in ["acc", "up"].iter().take(1 + usize::from(gated)) {
            text += &sum_lanes(shape, &format!("{variable}{t}"));
            if norm {
                let _ = writeln!(text, "  {variable}{t} = {variable}{t} * s{t};");
            }
        }
    }
    text += &if gated { store_gated(tile) } else { store(tile, add) };
    text += "}\n";
    Kernel::new(text, true, operands.len())
}

/// As [`multiply`] with activations in eight bits: words at `X`, scales behind them.
fn multiply_int8(to: &str, tile: u32, format: BlockFormat, base: &str) -> Option<String> {
    let mut text = format!("    {{\n    let row = {base};\n{}", decode::integers(format)?);
    for t in 0..tile {
        let words: Vec<String> = (0..8).map(|k| format!("dot4I8Packed(i{k}, X[xb{t} + {k}u])")).collect();
        let sums: Vec<String> = (0..8).map(|k| format!("dot4I8Packed(0x01010101u, X[xb{t} + {k}u])")).collect();
        let _ = writeln!(text, "    let xs{t} = bitcast<f32>(X[P.steps + xr{t} * P.chunks + c]);");
        let minimum =
            if format == BlockFormat::Q8_0 { "0.0".to_owned() } else { format!("m * f32({})", sums.join(" + ")) };
        let _ = writeln!(text, "    {to}{t} = {to}{t} + xs{t} * (d * f32({}) + {minimum});", words.join(" + "));
    }
    Some(text + "    }\n")
}

pub(super) fn product_int8(shape: Shape, format: BlockFormat, tile: u32, add: bool, gated: bool) -> Option<Kernel> {
    let params: Vec<&str> = ["per_group", "grid", "groups", "tokens", "chunks", "row_words", "scales", "steps"]
        .iter()
        .chain(MATRICES)
        .copied()
        .collect();
    let operands = [("X", "u32"), ("O0", "f32"), ("O1", "f32"), ("O2", "f32")];
    let mut text = header(&params, true, &operands);
    text += &reduction(shape);
    text += &entry(shape);
    text += "  let group = g.y * P.grid + g.x;\n  if (group >= P.groups) { return; }\n";
    let _ = writeln!(text, "  let t0 = g.z * {tile}u;");
    text += &lanes(shape);
    text += if gated { GATED_SELECT } else { SELECT };
    for t in 0..tile {
        let _ = writeln!(text, "  let xr{t} = min(t0 + {t}u, P.tokens - 1u);\n  var acc{t} = 0.0;");
        if gated {
            let _ = writeln!(text, "  var up{t} = 0.0;");
        }
    }
    let _ = writeln!(text, "  for (var c = lane; c < P.chunks; c = c + {}u) {{", shape.lanes);
    for t in 0..tile {
        let _ = writeln!(text, "    let xb{t} = (xr{t} * P.chunks + c) * 8u;");
    }
    if gated {
        text += &multiply_int8("acc", tile, format, "P.base0 + at * P.row_words")?;
        text += &multiply_int8("up", tile, format, "P.base1 + at * P.row_words")?;
    } else {
        text += &multiply_int8("acc", tile, format, "base + local * P.row_words")?;
    }
    text += "  }\n";
    for t in 0..tile {
        for variable in ["acc", "up"].iter().take(1 + usize::from(gated)) {
            text += &sum_lanes(shape, &format!("{variable}{t}"));
        }
    }
    text += &if gated { store_gated(tile) } else { store(tile, add) };
    text += "}\n";
    Some(Kernel::new(text, true, operands.len()))
}
