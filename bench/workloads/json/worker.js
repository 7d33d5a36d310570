// Parses a JSON body, changes it and answers with it.
export default {
  async fetch(request) {
    const order = await request.json();
    let total = 0;
    for (const item of order.items) total += item.count * item.price;
    return Response.json({ ...order, total, seen: order.items.length });
  },
};
