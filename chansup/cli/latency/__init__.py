"""`chansup latency`: what messages wait and take, measured live, and whether workers keep up."""
