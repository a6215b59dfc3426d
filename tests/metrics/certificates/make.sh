#!/bin/sh
# The certificates of test_tls.py, from 2020 on for a hundred years: an authority, its server, its client, and a stranger.
set -eu
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -r "$scratch"' EXIT

touch "$scratch/index"
cat > "$scratch/config" <<END
[ca]
default_ca = here
[here]
database = $scratch/index
new_certs_dir = $scratch
rand_serial = yes
default_md = sha256
policy = any
[any]
commonName = supplied
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
subjectKeyIdentifier = hash
[member]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1
END

certify() { # NAME SECTION ca-options…
    name=$1 section=$2
    shift 2
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$name of the tests" \
        -keyout "$name.key" -out "$scratch/$name.csr"
    openssl ca -batch -notext -config "$scratch/config" -extensions "$section" -in "$scratch/$name.csr" -out "$name.pem" \
        -startdate 20200101000000Z -enddate 21200101000000Z "$@"
}

certify authority authority -selfsign -keyfile authority.key
certify stranger authority -selfsign -keyfile stranger.key
certify server member -cert authority.pem -keyfile authority.key
certify client member -cert authority.pem -keyfile authority.key
openssl ec -in server.key -aes256 -passout pass:secret -out locked.key
rm authority.key
