#!/bin/sh
# Makes the users' files with a password of yours: ./users.sh PASSWORD
# The password is not stored; its digest is, which is what Redis keeps as well.
set -eu
cd "$(dirname "$0")"
[ $# = 1 ] || { echo "usage: $0 PASSWORD" >&2; exit 2; }
digest="$(printf '%s' "$1" | sha256sum | cut -d' ' -f1)"
mkdir -p users
for file in *.users.acl; do
  # Redis takes no comments in this file. Who asks whether it lives needs no password.
  grep -v '^#' "$file" | sed "s/PASSWORD_DIGEST/$digest/; s/^user default off/user default on nopass -@all +ping/" \
    > "users/${file%.users.acl}.acl"
done
echo "wrote users/*.acl"
