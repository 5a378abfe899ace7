# README.md of the chart: every value, from values.schema.json. Run by `make generate`.

def resolved($root):
  if has("$ref") then ($root.definitions[.["$ref"] | ltrimstr("#/definitions/")] + del(.["$ref"]) | resolved($root)) else . end;

def code: "`\(.)`";
def escaped: gsub("\\|"; "\\|") | gsub("<"; "\\<");

# Type with its range, as whoever writes values.yaml needs it.
def type_text($root):
  resolved($root)
  | if has("enum") then [.enum[] | if . == "" or . == null then "unset" else tostring | code end] | unique | join(", ")
    elif has("anyOf") or has("oneOf") then [(.anyOf // .oneOf)[] | type_text($root)] | unique | join(" or ")
    else ([.type] | flatten | map(select(. != "null")) | join(" or ")) as $type
    | if .minimum != null and .maximum != null then "\($type) \(.minimum)–\(.maximum)"
      elif $type == "array" then "list of \((.items // {}) | resolved($root) | .type // "anything" | if type == "array" then join(" or ") else . end)s"
      elif $type == "" then "anything"
      else $type end
    end;

# What the description says of the default, apart from the rest.
def split_default:
  (.description // "")
  | (capture("^(?<meaning>.*\\S) Default (?<default>.*?)\\.?$") // {meaning: ., default: ""});

def rows($root; $prefix):
  .properties // {} | to_entries[]
  | .key as $key | "\($prefix)\($key)" as $path
  | select($key != "global")
  | .value | resolved($root)
  | split_default as $words
  | (if (.properties // {}) != {} then null else type_text($root) end) as $type
  | "| \($path | code) | \($type // "" | escaped) | \($words.default | escaped) | \($words.meaning | escaped) |",
    (if .type == "array" then (.items // {} | resolved($root) | rows($root; "\($path)[].")) else rows($root; "\($path).") end);

. as $root
| "# Chart lvs-operator",
  "",
  "Installs the controllers, an agent on every node, the definitions of VirtualService, RealServer, VirtualRouter and NodePlan, and a default router:",
  "",
  "    helm install lvs-operator charts/lvs-operator --namespace lvs-system --create-namespace --values values.yaml",
  "    kubectl label namespace lvs-system pod-security.kubernetes.io/enforce=privileged     # where Pod Security enforces another level",
  "",
  "A first `values.yaml` is [examples/values.yaml](../../examples/values.yaml); [docs/upgrade.md](../../docs/upgrade.md) tells how to upgrade and to uninstall,",
  "[docs/security.md](../../docs/security.md) what the rights are for. A value that is not listed here is refused, as a misspelt one would otherwise be ignored.",
  "",
  "## Values",
  "",
  "| value | type | default | meaning |",
  "|---|---|---|---|",
  rows($root; "")
