"""One JSON file and one Markdown page from what the steps of gpu-check.sh left: report.py WORK OUT NAME. Whatever is missing is left out, and said."""
import json, os, sys

work, target, stem = sys.argv[1:4]


def lines(name):
    try:
        with open(os.path.join(work, name)) as file:
            found = []
            for line in file:
                try:
                    found.append(json.loads(line))
                except ValueError:
                    pass  # cut off in the middle
            return found
    except OSError:
        return []


def read(name):
    try:
        with open(os.path.join(work, name)) as file:
            return file.read()
    except OSError:
        return ""


steps = []
for line in read("steps.tsv").splitlines():
    name, status, seconds, limit = line.split("\t")
    log = read(f"{name}.log")
    totals = [text for text in log.splitlines() if text.startswith("# { total: ") or text.startswith("========= ERROR SUMMARY")]
    steps.append({"step": name, "status": int(status), "seconds": int(seconds), "limit": int(limit), "says": totals[-1].strip("# =") if totals else ""})
about = dict(line.split("\t", 1) for line in read("about.tsv").splitlines() if "\t" in line)
kernels, torch_kernels, torch_models, models = lines("kernels.jsonl"), lines("torch-kernels.jsonl"), lines("torch-models.jsonl"), lines("models.jsonl")
peak = json.loads(read("peak.json") or '{"flops": 790e12, "bytes": 4.3e12}')
card = next((each for each in kernels if "device" in each), {})
dry = about.get("dry") == "yes"
result = {"about": about, "card": card, "peak": peak, "steps": steps, "kernels": kernels, "torch_kernels": torch_kernels, "torch_models": torch_models, "models": models}
with open(os.path.join(target, f"{stem}.json"), "w") as file:
    json.dump(result, file, indent=1)
    file.write("\n")

page = [f"# gpu-check: {card.get('device', 'no card was reached')}, {about.get('date', '')}", ""]
if dry:
    page += ["**A dry run: the simulator in place of the card, PyTorch on the processor, tiny shapes. Its times mean nothing.**", ""]
page += [f"{name}: {value}  " for name, value in about.items() if name not in ("dry", "date")]


def table(head, rows):
    if not rows:
        return ["", "Nothing was measured."]
    return ["", "| " + " | ".join(head) + " |", "|" + "|".join([" --- "] + [" ---: "] * (len(head) - 1)) + "|"] + ["| " + " | ".join(row) + " |" for row in rows]


page += ["", "## Steps"] + table(["step", "result", "seconds", "of at most", "counts"], [
    [each["step"], {0: "passed", 124: "**out of time**", 137: "**out of time**", -1: "**not begun**"}.get(each["status"], f"**failed ({each['status']})**"), str(each["seconds"]), str(each["limit"]), each["says"]] for each in steps])
for each in torch_kernels:
    if each.get("ceiling") == "copy":
        page += ["", f"A large copy moves {each['bytes_per_second'] / 1e12:.2f} TB/s, counting bytes read and written."]
    if each.get("ceiling") == "product":
        page += [f"A product of 8192 × 8192 matrices in bf16 by cuBLAS runs at {each['flops_per_second'] / 1e12:.0f} TFLOP/s."]

beside = {}
for each in torch_kernels:
    if "variant" in each:
        beside.setdefault((each["model"], each["name"]), []).append(each)
rows = []
for each in kernels:
    if "microseconds" not in each:
        continue
    floor = max(each["flops"] / peak["flops"], each["bytes"] / peak["bytes"]) * 1e6
    others = sorted(beside.get((each["model"], each["name"]), []), key=lambda other: other["microseconds"])
    rows.append([
        f"{each['model']}, {each['name']}", f"{each['microseconds']:.1f} ({each['low']:.1f}–{each['high']:.1f})", f"{floor:.1f}", f"{floor / each['microseconds'] * 100:.0f} %",
        f"{each['flops'] / each['microseconds'] / 1e6:.0f}" if each["flops"] else "", f"{each['bytes'] / each['microseconds'] / 1e3:.0f}",
        "; ".join(f"{other['variant']} {other['microseconds']:.1f}" for other in others), f"{others[0]['microseconds'] / each['microseconds']:.2f}" if others else ""])
page += ["", "## Kernels", "", f"Microseconds of one call: median (10th to 90th percentile). Floor: at {peak['flops'] / 1e12:.0f} TFLOP/s and {peak['bytes'] / 1e12:.1f} TB/s. The last column is the "
         "quickest of PyTorch's times over ours, also where that does less (bias alone)."]
page += table(["call", "µs", "floor", "of floor", "TFLOP/s", "GB/s", "PyTorch, µs", "PyTorch / chiasma"], rows)
checks = {each["model"]: each for each in models if "cosine" in each}
rows = []
for each in [*models, *torch_models]:
    if "variant" not in each or "batch" not in each:
        continue
    check = checks.get(each["model"], {}) if each["variant"] == "chiasma" else {}
    rows.append((each["model"], each["batch"], each["variant"] != "chiasma", [
        f"{each['model']}, batch {each['batch']}", each["variant"], f"{each['microseconds'] / 1e3:.2f} ({each['low'] / 1e3:.2f}–{each['high'] / 1e3:.2f})", f"{each['batch'] / each['microseconds'] * 1e6:.0f}",
        f"{check['cosine']:.5f}" if check else "", ("yes" if check["same"] else "**no**") if check else ""]))
rows.sort(key=lambda row: row[:3])
page += ["", "## Models", "", "Milliseconds of a batch: median (10th to 90th percentile). chiasma: uint8 pictures or token ids in host memory to normalised embeddings in host memory."]
page += table(["model", "by", "ms", "items/s", "cosine with float32", "same bits alone"], [row[3] for row in rows])
with open(os.path.join(target, f"{stem}.md"), "w") as file:
    file.write("\n".join(page) + "\n")

with open(os.path.join(target, f"{stem}.log"), "w") as file:
    for each in steps:
        log = read(f"{each['step']}.log").splitlines()
        shown = log if len(log) <= 400 else [*log[:100], f"… {len(log) - 400} lines …", *log[-300:]]
        file.write("\n".join([f"=== {each['step']}: {each['status']}", *shown, ""]))
