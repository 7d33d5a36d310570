import type { FunctionComponent } from "preact";
import type { Place, Tide } from "./tides";

interface Props {
  site: string;
  styles: string;
  places: Place[];
  place: Place;
  days: number;
  tides: Tide[];
}

export const App: FunctionComponent<Props> = ({ site, styles, places, place, days, tides }) => (
  <html lang="en">
    <head>
      <meta charset="utf-8" />
      <meta name="viewport" content="width=device-width" />
      <title>{`${place.name} · ${site}`}</title>
      <style dangerouslySetInnerHTML={{ __html: styles }} />
    </head>
    <body>
      <header>
        <h1>{site}</h1>
        <nav>
          {places.map((p) => (
            <a href={`/?place=${encodeURIComponent(p.name)}&days=${days}`} aria-current={p === place ? "page" : undefined}>
              {p.name}
            </a>
          ))}
        </nav>
      </header>
      <main>
        <table>
          <caption>
            {place.name}, {days === 1 ? "today" : `the next ${days} days`} (UTC)
          </caption>
          <tbody>
            {tides.map((tide) => (
              <Row tide={tide} top={place.mean * 2} />
            ))}
          </tbody>
        </table>
        <footer>Two partial tides only: pretty, and not for navigation.</footer>
      </main>
    </body>
  </html>
);

const Row: FunctionComponent<{ tide: Tide; top: number }> = ({ tide, top }) => (
  <tr class={tide.high ? "high" : "low"}>
    <th scope="row">{tide.at.toISOString().slice(5, 16).replace("T", " ")}</th>
    <td>{tide.high ? "high" : "low"}</td>
    <td>{tide.height.toFixed(1)} m</td>
    <td class="bar">
      <span style={{ width: `${Math.max(2, Math.min(100, (tide.height / top) * 100)).toFixed(0)}%` }} />
    </td>
  </tr>
);
