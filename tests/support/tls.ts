/** Certificates of an authority of the test's own, made by openssl. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

export type Certificates = {
  /** paths of PEM files */
  ca: string;
  cert: string;
  key: string;
  /** settings of redis-server and of a Sentinel that serve them */
  settings: Record<string, string>;
};

function openssl(dir: string, ...args: string[]): void {
  const { success, stderr } = Bun.spawnSync(["openssl", ...args], { cwd: dir });
  if (!success) throw new Error(`openssl ${args.join(" ")}: ${stderr}`);
}

/**
 * @param names    what the certificate is for: "DNS:localhost", "IP:127.0.0.1"
 * @param clients  whether a client must show a certificate too
 */
export function makeCertificates(dir: string, names: string[], clients = false): Certificates {
  const curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl(dir, "req", "-x509", ...curve, "-keyout", "ca.key", "-out", "ca.crt", "-days", "30", "-subj", "/CN=test");
  openssl(dir, "req", ...curve, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node");
  writeFileSync(join(dir, "names"), `subjectAltName=${names.join(",")}\n`);
  const signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-extfile", "names"];
  openssl(dir, "x509", "-req", "-in", "node.csr", ...signed, "-out", "node.crt");
  const [ca, cert, key] = ["ca.crt", "node.crt", "node.key"].map((name) => join(dir, name)) as [string, string, string];
  return {
    ...{ ca, cert, key },
    settings: {
      ...{ "tls-ca-cert-file": ca, "tls-cert-file": cert, "tls-key-file": key },
      "tls-auth-clients": clients ? "yes" : "no",
    },
  };
}
