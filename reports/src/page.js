//<![CDATA[
"use strict";
(function () {
  var each = function (list, act) { Array.prototype.forEach.call(list, act); };
  var make = function (name, text, cls) {
    var node = document.createElement(name);
    if (text) { node.textContent = text; }
    if (cls) { node.className = cls; }
    return node;
  };
  /* Zoom: wheel or buttons; drag moves; a double click shows all. */
  each(document.querySelectorAll("figure svg[viewBox]"), function (svg) {
    var whole = svg.getAttribute("viewBox").split(" ").map(Number), box = whole.slice();
    var show = function () { svg.setAttribute("viewBox", box.join(" ")); };
    var zoom = function (factor, x, y) {
      var width = Math.min(whole[2], Math.max(whole[2] / 40, box[2] * factor));
      var scale = width / box[2];
      box = [x - (x - box[0]) * scale, y - (y - box[1]) * scale, width, box[3] * scale];
      keep();
    };
    var keep = function () {
      box[0] = Math.min(Math.max(box[0], whole[0]), whole[0] + whole[2] - box[2]);
      box[1] = Math.min(Math.max(box[1], whole[1]), whole[1] + whole[3] - box[3]);
      show();
    };
    var place = function (event) {
      var rect = svg.getBoundingClientRect();
      return [box[0] + (event.clientX - rect.left) / rect.width * box[2],
        box[1] + (event.clientY - rect.top) / rect.height * box[3]];
    };
    var middle = function (factor) { zoom(factor, box[0] + box[2] / 2, box[1] + box[3] / 2); };
    svg.addEventListener("wheel", function (event) {
      if (!event.ctrlKey && !event.shiftKey) { return; }
      event.preventDefault();
      var at = place(event);
      zoom(event.deltaY > 0 ? 1.25 : 0.8, at[0], at[1]);
    }, { passive: false });
    var from = null;
    svg.addEventListener("pointerdown", function (event) { from = place(event); });
    svg.addEventListener("pointermove", function (event) {
      if (!from || box[2] === whole[2]) { return; }
      var at = place(event);
      box[0] += from[0] - at[0];
      box[1] += from[1] - at[1];
      keep();
    });
    ["pointerup", "pointerleave"].forEach(function (name) { svg.addEventListener(name, function () { from = null; }); });
    svg.addEventListener("dblclick", function () { box = whole.slice(); show(); });
    var bar = make("div", "", "zoom");
    [["+", "Zoom in", function () { middle(0.7); }], ["\u2212", "Zoom out", function () { middle(1.43); }],
      ["All", "Show all", function () { box = whole.slice(); show(); }]].forEach(function (spec) {
      var button = make("button", spec[0]);
      button.type = "button";
      button.setAttribute("aria-label", spec[1]);
      button.addEventListener("click", spec[2]);
      bar.appendChild(button);
    });
    svg.parentNode.insertBefore(bar, svg);
  });
  /* Hover: what a mark is, and its row. */
  var tip = make("div", "", "tip");
  tip.setAttribute("role", "status");
  document.body.appendChild(tip);
  var marks = {};
  each(document.querySelectorAll("svg [data-row]"), function (mark) {
    var id = mark.getAttribute("data-row");
    (marks[id] = marks[id] || []).push(mark);
    var title = mark.querySelector("title");
    var words = title ? title.textContent : "";
    var over = function (event) {
      tip.textContent = words;
      tip.style.display = "block";
      var x = event.clientX === undefined ? 40 : event.clientX;
      var y = event.clientY === undefined ? 40 : event.clientY;
      tip.style.left = Math.min(x + 14, window.innerWidth - 320) + "px";
      tip.style.top = (y + 14) + "px";
      mark.classList.add("lit");
    };
    var out = function () { tip.style.display = "none"; mark.classList.remove("lit"); };
    mark.addEventListener("pointerenter", over);
    mark.addEventListener("pointerleave", out);
    mark.addEventListener("click", function () {
      var row = document.getElementById("row-" + id);
      if (row) { row.scrollIntoView({ block: "center" }); row.classList.add("lit"); }
    });
  });
  each(document.querySelectorAll("tr[id^='row-']"), function (row) {
    var mine = marks[row.id.slice(4)] || [];
    row.addEventListener("pointerenter", function () { mine.forEach(function (m) { m.classList.add("lit"); }); });
    row.addEventListener("pointerleave", function () {
      row.classList.remove("lit");
      mine.forEach(function (m) { m.classList.remove("lit"); });
    });
  });
  /* Filter and order: rows, and the marks that belong to them. */
  each(document.querySelectorAll("table"), function (table) {
    var body = table.tBodies[0];
    if (!body || body.rows.length === 1) { return; }
    var rows = Array.prototype.slice.call(body.rows);
    if (rows.length > 8) {
      var label = make("label", "Filter ", "filter"), input = make("input"), count = make("span", "", "count");
      input.type = "search";
      input.placeholder = "all of these words";
      label.appendChild(input);
      label.appendChild(count);
      table.parentNode.parentNode.insertBefore(label, table.parentNode);
      input.addEventListener("input", function () {
        var words = input.value.toLowerCase().split(/\s+/).filter(Boolean), kept = 0;
        rows.forEach(function (row) {
          var text = row.textContent.toLowerCase();
          var there = words.every(function (word) { return text.indexOf(word) !== -1; });
          row.hidden = !there;
          kept += there ? 1 : 0;
          (row.id ? marks[row.id.slice(4)] || [] : []).forEach(function (m) { m.classList.toggle("gone", !there); });
        });
        count.textContent = " " + kept + " of " + rows.length;
      });
    }
    each(table.tHead ? table.tHead.rows[0].cells : [], function (cell, at) {
      var down = false;
      cell.classList.add("sortable");
      cell.tabIndex = 0;
      var sort = function () {
        var value = function (row) {
          var inside = row.cells[at];
          if (!inside) { return ""; }
          var stated = inside.getAttribute("data-value");
          return stated === null ? inside.textContent.trim() : Number(stated);
        };
        rows.sort(function (a, b) {
          var x = value(a), y = value(b), order;
          if (typeof x === "number" ? typeof y === "number" : false) { order = x - y; } else { order = String(x).localeCompare(String(y), "en", { numeric: true }); }
          return down ? -order : order;
        });
        down = !down;
        rows.forEach(function (row) { body.appendChild(row); });
      };
      cell.addEventListener("click", sort);
      cell.addEventListener("keydown", function (event) { if (event.key === "Enter") { sort(); } });
    });
  });
})();
//]]>
