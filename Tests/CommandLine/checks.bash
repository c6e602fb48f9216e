# How the parts ask and judge.
passed=0
failed=0

pass() { passed=$((passed + 1)); }

fail() {
  failed=$((failed + 1))
  echo "FAILED: $*" >&2
}

# holds WHAT COMMAND…: the command's status is 0.
holds() {
  local what=$1
  shift
  if "$@" >/dev/null 2>&1; then pass; else fail "$what"; fi
}

# works ARGUMENTS…: status 0 and nothing on standard error. Standard output is in `out`, standard error in `err`.
works() {
  timeout 30 "$ldm" "$@" >out 2>err </dev/null
  local status=$?
  if [ $status = 0 ] && [ ! -s err ]; then pass; else fail "ldm $*: status $status: $(tail -n 1 err)"; fi
}

# warns WORDS ARGUMENTS…: status 0, and on standard error nothing but warnings, one of which has these words.
warns() {
  local words=$1 status
  shift
  timeout 30 "$ldm" "$@" >out 2>err </dev/null
  status=$?
  if [ $status = 0 ] && ! grep -qv '^Warning: .*\.$' err && grep -qE -- "$words" err; then
    pass
  else
    fail "ldm ${*:0:300}: status $status, not a warning of \"$words\": $(head -c 300 err)"
  fi
}

# refused STATUS WORDS ARGUMENTS…: the status, one line on standard error that is a sentence with these words, and nothing in `made`.
refused() {
  local status=$1 words=$2
  shift 2
  timeout 30 "$ldm" "$@" >out 2>err </dev/null
  told $? "$status" "$words" "ldm $*"
}

# told FOUND-STATUS STATUS WORDS WHAT: judges a failure that left its words in `err`.
told() {
  local found=$1 status=$2 words=$3 what=${4:0:300} before=$failed
  [ "$found" = "$status" ] || fail "$what: status $found, not $status: $(tail -n 1 err)"
  [ "$(wc -l <err)" = 1 ] || fail "$what: $(wc -l <err) lines on standard error: $(head -n 3 err)"
  [ "$(wc -c <err)" -lt 2000 ] || fail "$what: $(wc -c <err) bytes on standard error"
  grep -qiE "^Error: .*$words.*[.?)]\$" err || fail "$what: \"$(head -c 300 err)\" is no sentence that says \"$words\""
  nothing_left "$what"
  [ "$failed" != "$before" ] || pass
}

# nothing_left WHAT: `made` is empty.
nothing_left() {
  local left
  left=$(ls -A made)
  [ -z "$left" ] || fail "$1: left $left behind"
  rm -rf made
  mkdir made
}

# header FILE: the header of a safetensors file.
header() { tail -c +9 "$1" | head -c "$(od -An -tu8 -N8 "$1")"; }

# holds_tensor FILE NAME SHAPE: the file holds one float32 tensor of this name and shape, and exactly its bytes.
holds_tensor() {
  local dimension count=4 found
  for dimension in ${3//,/ }; do count=$((count * dimension)); done
  found=$(header "$1" | tr -d ' \n')
  case $found in
    "{\"$2\":{\"dtype\":\"F32\",\"shape\":[$3],\"data_offsets\":[0,$count]}}") ;;
    *) fail "$1: the header is $found"; return ;;
  esac
  if [ "$(stat -c %s "$1")" = $((8 + $(od -An -tu8 -N8 "$1") + count)) ]; then pass; else fail "$1 has $(stat -c %s "$1") bytes"; fi
}

# numbers FILE NAME: the numbers of a float32 tensor, one a line.
numbers() {
  local start end
  read -r start end < <(header "$1" | grep -o "\"$2\":{[^}]*}" | sed -E 's/.*"data_offsets": ?\[([0-9]+), ?([0-9]+)\].*/\1 \2/')
  od -An -v -tf4 -w4 -j $((8 + $(od -An -tu8 -N8 "$1") + start)) -N $((end - start)) "$1"
}

# close_to LIMIT FILE NAME REFERENCE NAME: no element is further from the reference than the limit, in standard deviations of the reference.
close_to() {
  local result
  result=$(paste <(numbers "$2" "$3") <(numbers "$4" "$5") | awk -v limit="$1" '
    NF != 2 { print "one has more elements"; bad = 1; exit }
    { d = $1 - $2; if (d < 0) d = -d; if (!(d <= most)) { most = d; where = NR - 1 }; sum += $2; squares += $2 * $2 }
    END {
      if (bad) exit
      deviation = sqrt(squares / NR - (sum / NR) ^ 2)
      if (NR == 0) print "there are no elements"
      else if (!(most <= limit * deviation)) printf "%g standard deviations apart at element %d of %d\n", most / deviation, where, NR
    }')
  if [ -z "$result" ]; then pass; else fail "$2 and $4: $result"; fi
}

# says WORDS: standard output has a line of this form (an extended regular expression).
says() { if grep -qE -- "$1" out; then pass; else fail "standard output does not say \"$1\": $(head -c 300 out)"; fi; }

# same FILE FILE
same() { if cmp -s "$1" "$2"; then pass; else fail "$1 and $2 differ"; fi; }

# differ FILE FILE
differ() { if cmp -s "$1" "$2"; then fail "$1 and $2 are the same"; else pass; fi; }

# is_png FILE WIDTH HEIGHT: a whole PNG of 8-bit RGB.
is_png() {
  local found
  found=$(od -An -v -tx1 -N26 "$1" | tr -d ' \n')
  if [ "$found" = "89504e470d0a1a0a0000000d49484452$(printf %08x%08x "$2" "$3")0802" ] &&
    [ "$(tail -c 8 "$1" | od -An -tx1 | tr -d ' \n')" = 49454e44ae426082 ]; then
    pass
  else
    fail "$1 is no whole PNG of $2×$3: $found"
  fi
}

# safetensors FILE HEADER BYTES: a file with this header and so many bytes of zeros.
safetensors() {
  local bits length
  length=$(printf %s "$2" | wc -c)
  {
    for ((bits = 0; bits < 64; bits += 8)); do printf "\\x$(printf %02x $((length >> bits & 255)))"; done
    printf %s "$2"
    head -c "$3" /dev/zero
  } >"$1"
}

# is_json FILE: judged by Python where there is one.
is_json() {
  if ! command -v python3 >/dev/null 2>&1; then return; fi
  if python3 -m json.tool "$1" >/dev/null 2>&1; then pass; else fail "no JSON: $(head -c 300 "$1")"; fi
}

# black_pixel FILE: a PNG of one grey pixel, which is black.
black_pixel() { base64 -d >"$1" <<<iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==; }
