/** Network addresses: one form for each, sets of them, and the one that stands for everybody outside a container. */
import { existsSync, readFileSync } from "node:fs";
import { BlockList, isIP } from "node:net";

/** Addresses as one form: `::ffff:10.0.0.1` is 10.0.0.1, a zone or a port does not count. */
export function plainIp(text: string): string {
  let ip = text.trim();
  const bracket = /^\[([^\]]+)\](?::\d+)?$/.exec(ip);
  if (bracket) ip = bracket[1] as string;
  else if (/^\d+\.\d+\.\d+\.\d+:\d+$/.test(ip)) ip = ip.slice(0, ip.lastIndexOf(":"));
  ip = ip.replace(/%.*$/, "");
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip);
  return mapped ? (mapped[1] as string) : ip;
}

/** Why a text is neither an address nor a CIDR range, or undefined when it is one. */
export function rangeFault(item: string): string | undefined {
  const [net = "", bits, more] = item.split("/");
  const family = isIP(net);
  const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= (family === 4 ? 32 : 128));
  if (family && fits && more === undefined) return undefined;
  return `${JSON.stringify(item)} is neither an address nor a CIDR range such as 10.0.0.0/8`;
}

/** A set of addresses and CIDR ranges. @throws Error naming the item that is none */
export function ranges(items: string[]): (ip: string) => boolean {
  const list = new BlockList();
  for (const item of items) {
    const fault = rangeFault(item);
    if (fault) throw new Error(fault);
    const [net = "", bits] = item.split("/");
    const family = isIP(net) === 4 ? "ipv4" : "ipv6";
    list.addSubnet(net, Number(bits ?? (family === "ipv4" ? 32 : 128)), family);
  }
  return (ip) => {
    const family = isIP(ip);
    return family !== 0 && list.check(ip, family === 4 ? "ipv4" : "ipv6");
  };
}

/** What a rate or a count of wrong keys is kept by: one IPv6 customer has 2^64 addresses at least, all of them in one /64. */
export function subnetOf(ip: string): string {
  if (isIP(ip) !== 6) return ip;
  const [head = "", tail] = ip.toLowerCase().split("::");
  const parts = (text: string) => (text === "" ? [] : text.split(":"));
  const before = parts(head);
  const after = parts(tail ?? "");
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - before.length - after.length);
  const groups = [...before, ...new Array<string>(zeros).fill("0"), ...after];
  return `${groups
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`;
}

export const isLoopback = (host: string) => /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/i.test(host);

export type FileReader = { exists(path: string): boolean; read(path: string): string };
const disk: FileReader = { exists: existsSync, read: (path) => readFileSync(path, "utf8") };

/**
 * The addresses of a container's own default gateway. A published port shows every caller from outside under that
 * address, so a range that covers it would let the whole world in without a key. Empty outside a container.
 * @see https://docs.kernel.org/networking/proc_net_tcp.html (hexadecimal, in the byte order of the machine)
 */
export function containerGateways(files: FileReader = disk): string[] {
  if (!files.exists("/.dockerenv") && !files.exists("/run/.containerenv")) return [];
  const rows = (path: string) => {
    try {
      return files.read(path).split("\n");
    } catch {
      return []; // no such table: no route, hence no gateway
    }
  };
  const found = new Set<string>();
  // Iface Destination Gateway …; the default route's destination is 0
  for (const row of rows("/proc/net/route")) {
    const [, destination, gateway] = row.trim().split(/\s+/);
    if (destination !== "00000000" || !/^[0-9A-F]{8}$/i.test(gateway ?? "") || gateway === "00000000") continue;
    const bytes = (gateway as string).match(/../g) as string[];
    found.add(
      bytes
        .reverse()
        .map((byte) => Number.parseInt(byte, 16))
        .join("."),
    );
  }
  // destination prefix source prefix next-hop …; all of it in network order
  for (const row of rows("/proc/net/ipv6_route")) {
    const [destination, prefix, , , hop] = row.trim().split(/\s+/);
    if (!/^0{32}$/.test(destination ?? "") || prefix !== "00" || !/^[0-9a-f]{32}$/i.test(hop ?? "")) continue;
    if (/^0{32}$/.test(hop as string)) continue;
    found.add(((hop as string).match(/..../g) as string[]).join(":"));
  }
  return [...found];
}
