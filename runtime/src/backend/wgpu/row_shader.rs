//! Operations on rows: norm, eight-bit rounding, lookup, rotation, cache, attention, sums, largest.

use super::decode;
use super::shader::{Kernel, Shape, entry, header, reduction, sum_lanes};
use crate::backend::CACHE_BLOCK;
use crate::model::format::BlockFormat;
use std::fmt::Write as _;

/// One workgroup per row: through its norm, then each block of 32 to eight bits with a scale of `max / 127`.
pub(super) fn quantise(shape: Shape, norm: bool) -> Kernel {
    let shape = Shape { subgroups: false, lanes: shape.threads, ..shape };
    let params = ["grid", "tokens", "columns", "chunks", "x", "n", "epsilon", "steps"];
    let mut text = header(&params, false, &[("X", "f32"), ("N", "f32"), ("O", "u32")]);
    text += &reduction(shape);
    text += &entry(shape);
    text += "  let row = g.y * P.grid + g.x;\n  if (row >= P.tokens) { return; }\n  let lane = li;\n";
    text += "  let x0 = P.x + row * P.columns;\n  var s = 0.0;\n";
    if norm {
        let _ = write!(
            text,
            "  for (var i = lane; i < P.columns; i = i + {}u) {{ let x = X[x0 + i]; s = s + x * x; }}\n{}  s = 1.0 / sqrt(s \
             / f32(P.columns) + bitcast<f32>(P.epsilon));\n",
            shape.lanes,
            sum_lanes(shape, "s")
        );
    }
    let value = if norm { "X[x0 + c * 32u + i] * s * N[P.n + c * 32u + i]" } else { "X[x0 + c * 32u + i]" };
    let _ = write!(
        text,
        "  for (var c = lane; c < P.chunks; c = c + {}u) {{
    var most = 0.0;
    for (var i = 0u; i < 32u; i = i + 1u) {{ most = max(most, abs({value})); }}
    let step = most / 127.0;
    let inverse = select(0.0, 127.0 / most, most > 0.0);
    for (var k = 0u; k < 8u; k = k + 1u) {{
      var v = vec4<i32>(0);
      for (var j = 0u; j < 4u; j = j + 1u) {{ let i = 4u * k + j; v[j] = i32(round({value} * inverse)); }}
      O[(row * P.chunks + c) * 8u + k] = pack4xI8(v);
    }}
    O[P.steps + row * P.chunks + c] = bitcast<u32>(step);
  }}
}}
",
        shape.threads
    );
    Kernel::new(text, false, 3)
}

pub(super) fn lookup(shape: Shape, format: BlockFormat) -> Kernel {
    let shape = Shape { subgroups: false, ..shape };
    let params = [
        "grid",
        "tokens",
        "columns",
        "chunks",
        "row_words",
        "scales",
        "base",
        "first",
        "count",
        "rows",
        "indices",
        "out",
    ];
    let mut text = header(&params, true, &[("I", "u32"), ("O", "f32")]);
    text += &entry(shape);
    let _ = write!(
        text,
        "  let id = (g.y * P.grid + g.x) * {}u + li;
  let token = id / P.chunks;
  let c = id % P.chunks;
  if (token >= P.tokens) {{ return; }}
  let index = min(I[P.indices + token], P.rows - 1u);
  if (index < P.first || index - P.first >= P.count) {{ return; }}
  let row = P.base + (index - P.first) * P.row_words;
{}  let o = P.out + token * P.columns + c * 32u;
",
        shape.threads,
        decode::weights(format)
    );
    for i in 0..32 {
        let _ = writeln!(text, "  if (c * 32u + {i}u < P.columns) {{ O[o + {i}u] = w{}[{}]; }}", i / 4, i % 4);
    }
    text += "}\n";
    Kernel::new(text, true, 2)
}

pub(super) fn norm(shape: Shape) -> Kernel {
    let shape = Shape { subgroups: false, lanes: shape.threads, ..shape };
    let params = ["grid", "tokens", "columns", "x", "n", "epsilon", "out"];
    let mut text = header(&params, false, &[("X", "f32"), ("N", "f32"), ("O", "f32")]);
    text += &reduction(shape);
    text += &entry(shape);
    let _ = write!(
        text,
        "  let row = g.y * P.grid + g.x;
  if (row >= P.tokens) {{ return; }}
  let lane = li;
  let x0 = P.x + row * P.columns;
  var s = 0.0;
  for (var i = lane; i < P.columns; i = i + {0}u) {{ let x = X[x0 + i]; s = s + x * x; }}
{1}  let scale = 1.0 / sqrt(s / f32(P.columns) + bitcast<f32>(P.epsilon));
  for (var i = lane; i < P.columns; i = i + {0}u) {{
    O[P.out + row * P.columns + i] = X[x0 + i] * scale * N[P.n + i];
  }}
}}
",
        shape.threads,
        sum_lanes(shape, "s")
    );
    Kernel::new(text, false, 3)
}

/// Places of a pair in its head.
fn pair(split: bool) -> &'static str {
    if split { "let a = pair;\n  let b = pair + P.half;\n" } else { "let a = 2u * pair;\n  let b = a + 1u;\n" }
}

pub(super) fn rotate(shape: Shape, split: bool) -> Kernel {
    let shape = Shape { subgroups: false, ..shape };
    let params = ["grid", "total", "heads", "size", "half", "positions", "x", "rows", "table"];
    let mut text = header(&params, false, &[("X", "f32"), ("R", "u32"), ("T", "f32")]);
    text += &entry(shape);
    let _ = write!(
        text,
        "  let id = (g.y * P.grid + g.x) * {}u + li;
  if (id >= P.total) {{ return; }}
  let pair = id % P.half;
  let head = id / P.half % P.heads;
  let row = id / P.half / P.heads;
  let seen = R[P.rows + 2u * row];
  let position = min(max(seen, 1u) - 1u, P.positions - 1u);
  let t = P.table + (position * P.half + pair) * 2u;
  let x = P.x + (row * P.heads + head) * P.size;
  {}  let xa = X[x + a];
  let xb = X[x + b];
  X[x + a] = xa * T[t] - xb * T[t + 1u];
  X[x + b] = xa * T[t + 1u] + xb * T[t];
}}
",
        shape.threads,
        pair(split)
    );
    Kernel::new(text, false, 3)
}

/// One thread per pair of every query and key head, and per number that is not rotated or only copied.
pub(super) fn remember(shape: Shape, split: bool) -> Kernel {
    let shape = Shape { subgroups: false, ..shape };
    let params = [
        "grid",
        "total",
        "heads",
        "kv",
        "size",
        "half",
        "positions",
        "blocks",
        "listed",
        "query",
        "key",
        "value",
        "rows",
        "list",
        "table",
        "keys",
        "values",
    ];
    let operands = [
        ("Q", "f32"),
        ("K", "f32"),
        ("V", "f32"),
        ("R", "u32"),
        ("B", "u32"),
        ("T", "f32"),
        ("CK", "f32"),
        ("CV", "f32"),
    ];
    let mut text = header(&params, false, &operands);
    text += &entry(shape);
    let _ = write!(
        text,
        "  let id = (g.y * P.grid + g.x) * {}u + li;
  if (id >= P.total) {{ return; }}
  let each = P.size / 2u + (P.size & 1u);
  let pair = id % each;
  let head = id / each % (P.heads + P.kv);
  let row = id / each / (P.heads + P.kv);
  let seen = R[P.rows + 2u * row];
  let place = max(seen, 1u) - 1u;
  let position = min(place, P.positions - 1u);
  let t = P.table + (position * P.half + pair) * 2u;
  let turned = pair < P.half;
  {pair}  if (head < P.heads) {{
    if (turned) {{
      let x = P.query + (row * P.heads + head) * P.size;
      let xa = Q[x + a];
      let xb = Q[x + b];
      Q[x + a] = xa * T[t] - xb * T[t + 1u];
      Q[x + b] = xa * T[t + 1u] + xb * T[t];
    }}
    return;
  }}
  let begin = R[P.rows + 2u * row + 1u];
  let at = place / {CACHE_BLOCK}u;
  if (begin >= P.listed || at >= P.listed - begin) {{ return; }}
  let block = B[P.list + begin + at];
  if (block >= P.blocks) {{ return; }}
  let kv_head = head - P.heads;
  let x = (row * P.kv + kv_head) * P.size;
  let o = ((block * P.kv + kv_head) * {CACHE_BLOCK}u + place % {CACHE_BLOCK}u) * P.size;
  if (turned) {{
    let xa = K[P.key + x + a];
    let xb = K[P.key + x + b];
    CK[P.keys + o + a] = xa * T[t] - xb * T[t + 1u];
    CK[P.keys + o + b] = xa * T[t + 1u] + xb * T[t];
  }}
  // What is not rotated: two numbers per thread, from the end of the rotated ones on.
  for (var i = 2u * pair; i < min(2u * pair + 2u, P.size); i = i + 1u) {{
    if (i >= 2u * P.half) {{ CK[P.keys + o + i] = K[P.key + x + i]; }}
    CV[P.values + o + i] = V[P.value + x + i];
  }}
}}
",
        shape.threads,
        pair = pair(split)
    );
    Kernel::new(text, false, operands.len())
}

/// Threads of an attention workgroup, and positions of a tile.
pub(super) const ATTEND_THREADS: u32 = 64;

/// One workgroup per row and `together` query heads that share keys: tiles of 64 positions, softmax carried along.
pub(super) fn attend(size: u32, together: u32) -> Kernel {
    let shape = Shape { threads: ATTEND_THREADS, lanes: 1, subgroups: false, halves: false };
    let params =
        ["grid", "total", "heads", "kv", "blocks", "listed", "scale", "query", "rows", "list", "keys", "values", "out"];
    let operands = [("Q", "f32"), ("R", "u32"), ("B", "u32"), ("CK", "f32"), ("CV", "f32"), ("O", "f32")];
    let mut text = header(&params, false, &operands);
    let each = size.div_ceil(ATTEND_THREADS);
    let _ = write!(
        text,
        "var<workgroup> scores: array<f32, {scores}>;
var<workgroup> places: array<u32, {ATTEND_THREADS}>;
var<workgroup> queries: array<f32, {queries}>;
var<workgroup> shared_seen: vec2<u32>;
",
        scores = ATTEND_THREADS * together,
        queries = size * together
    );
    text += &entry(shape);
    let _ = write!(
        text,
        "  let unit = g.y * P.grid + g.x;
  if (unit >= P.total) {{ return; }}
  let groups = P.heads / {together}u;
  let row = unit / groups;
  let head0 = unit % groups * {together}u;
  let kv_head = head0 / (P.heads / P.kv);
  if (li == 0u) {{ shared_seen = vec2<u32>(R[P.rows + 2u * row], R[P.rows + 2u * row + 1u]); }}
  for (var i = li; i < {size}u * {together}u; i = i + {ATTEND_THREADS}u) {{
    queries[i] = Q[P.query + (row * P.heads + head0) * {size}u + i] * bitcast<f32>(P.scale);
  }}
  let rb = workgroupUniformLoad(&shared_seen);
  // Whatever the tables hold: no more positions than blocks that are listed, and none of a block that is not there.
  let listed = select(0u, P.listed - rb.y, rb.y < P.listed);
  let seen = min(max(rb.x, 1u), listed * {CACHE_BLOCK}u);
"
    );
    for h in 0..together {
        let _ = writeln!(text, "  var most{h} = -3.4e38;\n  var sum{h} = 0.0;");
        for e in 0..each {
            let _ = writeln!(text, "  var acc{h}_{e} = 0.0;");
        }
    }
    let _ = write!(
        text,
        "  for (var tile = 0u; tile < seen; tile = tile + {ATTEND_THREADS}u) {{
    let position = tile + li;
    if (position < seen) {{
      let block = min(B[P.list + rb.y + position / {CACHE_BLOCK}u], P.blocks - 1u);
      let at = ((block * P.kv + kv_head) * {CACHE_BLOCK}u + position % {CACHE_BLOCK}u) * {size}u;
      places[li] = at;
"
    );
    for h in 0..together {
        let _ = writeln!(text, "      var s{h} = 0.0;");
    }
    let _ = writeln!(text, "      for (var i = 0u; i < {size}u; i = i + 1u) {{\n        let k = CK[P.keys + at + i];");
    for h in 0..together {
        let _ = writeln!(text, "        s{h} = s{h} + k * queries[{}u + i];", h * size);
    }
    text += "      }\n";
    for h in 0..together {
        let _ = writeln!(text, "      scores[{}u + li] = s{h};", h * ATTEND_THREADS);
    }
    let _ = writeln!(text, "    }}\n    workgroupBarrier();\n    let here = min(seen - tile, {ATTEND_THREADS}u);");
    for h in 0..together {
        let _ = writeln!(
            text,
            "    var next{h} = most{h};\n    for (var j = 0u; j < here; j = j + 1u) {{ next{h} = max(next{h}, scores[{}u + \
             j]); }}\n    let kept{h} = exp(most{h} - next{h});\n    most{h} = next{h};",
            h * ATTEND_THREADS
        );
    }
    text += "    workgroupBarrier();\n";
    for h in 0..together {
        let at = h * ATTEND_THREADS;
        let _ = writeln!(text, "    if (li < here) {{ scores[{at}u + li] = exp(scores[{at}u + li] - most{h}); }}");
    }
    text += "    workgroupBarrier();\n";
    for h in 0..together {
        let _ = writeln!(text, "    sum{h} = sum{h} * kept{h};");
        for e in 0..each {
            let _ = writeln!(text, "    acc{h}_{e} = acc{h}_{e} * kept{h};");
        }
    }
    text += "    for (var j = 0u; j < here; j = j + 1u) {\n      let v = P.values + places[j] + li;\n";
    for h in 0..together {
        let _ = writeln!(text, "      let w{h} = scores[{}u + j];\n      sum{h} = sum{h} + w{h};", h * ATTEND_THREADS);
    }
    for e in 0..each {
        let guard = if size.is_multiple_of(ATTEND_THREADS) {
            format!("CV[v + {}u]", e * ATTEND_THREADS)
        } else {
            format!("CV[select(v - li, v + {0}u, li + {0}u < {size}u)]", e * ATTEND_THREADS)
        };
        let _ = writeln!(text, "      let v{e} = {guard};");
        for h in 0..together {
            let _ = writeln!(text, "      acc{h}_{e} = acc{h}_{e} + w{h} * v{e};");
        }
    }
    text += "    }\n    workgroupBarrier();\n  }\n";
    for h in 0..together {
        for e in 0..each {
            let number = e * ATTEND_THREADS;
            let _ = writeln!(
                text,
                "  if (li + {number}u < {size}u) {{ O[P.out + (row * P.heads + head0 + {h}u) * {size}u + li + {number}u] = \
                 acc{h}_{e} / sum{h}; }}"
            );
        }
    }
    text += "}\n";
    Kernel::new(text, false, operands.len())
}

/// One thread per number of two operands.
pub(super) fn pointwise(shape: Shape, kind: &str, statement: &str) -> Kernel {
    let shape = Shape { subgroups: false, ..shape };
    let mut text = header(&["grid", "total", "a", "b"], false, &[("X", kind), ("Y", kind)]);
    text += &entry(shape);
    let _ = write!(
        text,
        "  let id = (g.y * P.grid + g.x) * {}u + li;\n  if (id >= P.total) {{ return; }}\n  {statement}\n}}\n",
        shape.threads
    );
    Kernel::new(text, false, 2)
}

pub(super) fn argmax(shape: Shape) -> Kernel {
    let shape = Shape { subgroups: false, ..shape };
    let threads = shape.threads;
    let mut text = header(&["grid", "tokens", "columns", "x", "out"], false, &[("X", "f32"), ("O", "u32")]);
    let _ = writeln!(text, "var<workgroup> best: array<f32, {threads}>;\nvar<workgroup> index: array<u32, {threads}>;");
    text += &entry(shape);
    let _ = write!(
        text,
        "  let row = g.y * P.grid + g.x;
  if (row >= P.tokens) {{ return; }}
  let x = P.x + row * P.columns;
  var most = X[x];
  var at = 0u;
  for (var i = li; i < P.columns; i = i + {threads}u) {{ if (X[x + i] > most) {{ most = X[x + i]; at = i; }} }}
  best[li] = most;
  index[li] = at;
  workgroupBarrier();
  for (var step = {half}u; step > 0u; step = step / 2u) {{
    if (li < step) {{
      let other = best[li + step];
      if (other > best[li] || (other == best[li] && index[li + step] < index[li])) {{
        best[li] = other;
        index[li] = index[li + step];
      }}
    }}
    workgroupBarrier();
  }}
  if (li == 0u) {{ O[P.out + row] = index[0]; }}
}}
",
        half = threads / 2
    );
    Kernel::new(text, false, 2)
}
