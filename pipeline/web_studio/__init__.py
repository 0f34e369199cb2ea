"""The web application of `vdsm studio`: its page, its API, and the Ray Serve deployments behind them."""
