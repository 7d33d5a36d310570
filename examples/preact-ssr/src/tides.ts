/** A port and the two strongest partial tides there: amplitude in metres, phase in degrees. */
export interface Place {
  name: string;
  mean: number;
  m2: [amplitude: number, phase: number];
  s2: [amplitude: number, phase: number];
}

export interface Tide {
  at: Date;
  height: number;
  high: boolean;
}

export const places: Place[] = [
  { name: "Brest", mean: 4.0, m2: [2.05, 109], s2: [0.75, 148] },
  { name: "Liverpool", mean: 5.2, m2: [3.12, 321], s2: [1.0, 5] },
  { name: "Cuxhaven", mean: 1.8, m2: [1.35, 338], s2: [0.35, 42] },
];

const hour = 3_600_000;
const speed = { m2: 28.9841042, s2: 30 }; // degrees an hour

function height(place: Place, ms: number): number {
  const hours = ms / hour;
  const wave = ([amplitude, phase]: [number, number], degrees: number) =>
    amplitude * Math.cos(((degrees * hours - phase) * Math.PI) / 180);
  return place.mean + wave(place.m2, speed.m2) + wave(place.s2, speed.s2);
}

/** High and low waters, found where the height stops rising or falling. A model, not for navigation. */
export function tides(place: Place, from: Date, days: number): Tide[] {
  const step = hour / 10;
  const out: Tide[] = [];
  const end = from.getTime() + days * 24 * hour;
  for (let t = from.getTime(); t < end; t += step) {
    const [before, here, after] = [height(place, t - step), height(place, t), height(place, t + step)];
    const high = here >= before && here > after;
    if (high || (here <= before && here < after)) out.push({ at: new Date(t), height: here, high });
  }
  return out;
}
