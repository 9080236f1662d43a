import * as format from "../shared/format.js";
import { fieldsOf, numberIn, splitChannel, timeIn } from "./fields.js";
import { addPoint, emptyHistory, type History } from "./history.js";

export interface Metric {
  readonly field: string;
  readonly label: string;
  readonly format: (value: number) => string;
  /** On an axis, where it is narrow. */
  readonly axis?: (value: number) => string;
  /** Counts and sums have a natural floor at zero; ratios are shown as they move. */
  readonly floor?: number;
}

export const METRICS: readonly Metric[] = [
  { field: "impressions", label: "Impressions", format: format.count, axis: format.short, floor: 0 },
  { field: "clicks", label: "Clicks", format: format.count, axis: format.short, floor: 0 },
  { field: "ctr", label: "CTR", format: format.percent },
  { field: "spend", label: "Spend", format: format.money, axis: format.short, floor: 0 },
  { field: "cpc", label: "CPC", format: format.money },
  { field: "conversions", label: "Conversions", format: format.count, axis: format.short, floor: 0 },
  { field: "revenue", label: "Revenue", format: format.money, axis: format.short, floor: 0 },
  { field: "roas", label: "ROAS", format: format.ratio },
];

export interface Campaign {
  readonly id: string;
  /** The newest values, in the order of {@link METRICS}; null where a campaign has none. */
  readonly values: readonly (number | null)[];
  readonly history: History;
  readonly updatedAt: number;
}

export interface Campaigns {
  /** By id, in the order in which they were first heard of. */
  readonly all: readonly Campaign[];
  /** All of them together, over time. */
  readonly totals: History;
}

export const noCampaigns: Campaigns = { all: [], totals: emptyHistory(METRICS.length) };

const CAMPAIGNS_MAX = 24;

export function isCampaignChannel(channel: string): boolean {
  return channel.startsWith("campaign_metrics:");
}

/** What a campaign stands at. Ratios that a worker leaves out are computed from what it tells. */
function valuesOf(data: unknown): (number | null)[] {
  const fields = fieldsOf(data);
  const told = new Map(METRICS.map(({ field }) => [field, numberIn(fields, field) ?? null]));
  return METRICS.map(({ field }) => told.get(field) ?? ratioOf(field, (name) => told.get(name) ?? null));
}

const RATIOS: Record<string, readonly [over: string, under: string]> = {
  ctr: ["clicks", "impressions"],
  cpc: ["spend", "clicks"],
  roas: ["revenue", "spend"],
};

function ratioOf(field: string, told: (name: string) => number | null): number | null {
  const parts = RATIOS[field];
  if (!parts) return null;
  const [over, under] = [told(parts[0]), told(parts[1])];
  return over === null || !under ? null : over / under;
}

/** Sums of counts, and ratios of the sums. */
function totalsOf(all: readonly Campaign[]): (number | null)[] {
  const sums = new Map<string, number | null>();
  METRICS.forEach(({ field }, index) => {
    const values = all.flatMap(({ values }) => values[index] ?? []);
    sums.set(field, values.length > 0 && !RATIOS[field] ? values.reduce((sum, value) => sum + value, 0) : null);
  });
  return METRICS.map(({ field }) => sums.get(field) ?? ratioOf(field, (name) => sums.get(name) ?? null));
}

/** Takes the newest value of `campaign_metrics:ID`. */
export function addMetrics(campaigns: Campaigns, channel: string, data: unknown, now: number): Campaigns {
  const [, id] = splitChannel(channel);
  const values = valuesOf(data);
  if (values.every((value) => value === null)) return campaigns;
  const at = timeIn(fieldsOf(data), now);
  const index = campaigns.all.findIndex((campaign) => campaign.id === id);
  const known = campaigns.all[index];
  const history = addPoint(known?.history ?? emptyHistory(METRICS.length), at, values);
  const next: Campaign = { id, values, history, updatedAt: at };
  const all = known ? campaigns.all.with(index, next) : [...campaigns.all, next].slice(-CAMPAIGNS_MAX);
  return { all, totals: addPoint(campaigns.totals, at, totalsOf(all)) };
}

/** Forgets the campaigns that none of these channels tells of any more. */
export function keepCampaigns(campaigns: Campaigns, channels: ReadonlySet<string>): Campaigns {
  const all = campaigns.all.filter(({ id }) => channels.has(`campaign_metrics:${id}`));
  return all.length === campaigns.all.length ? campaigns : { ...campaigns, all };
}

/** The campaign has no value any more. */
export function removeCampaign(campaigns: Campaigns, channel: string): Campaigns {
  const [, id] = splitChannel(channel);
  const all = campaigns.all.filter((campaign) => campaign.id !== id);
  return all.length === campaigns.all.length ? campaigns : { ...campaigns, all };
}
